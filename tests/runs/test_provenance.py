"""about.yaml: the commit of the source, and that an existing file stays."""

import hashlib
import subprocess

import yaml

from charrnn.runs import provenance


def test_commit_and_changes_of_the_source(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True)

    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert (
        provenance.collect_provenance()["commit"],
        provenance.collect_provenance()["dirty"],
    ) == (None, None)
    git("init", "-q")
    (tmp_path / "file").write_text("a")
    git("add", ".")
    git("commit", "-qm", "One")
    assert provenance.collect_provenance()["dirty"] is False
    assert len(provenance.collect_provenance()["commit"]) == len(hashlib.sha1().hexdigest())
    (tmp_path / "file").write_text("b")
    assert provenance.collect_provenance()["dirty"] is True


def test_existing_file_stays(tmp_path):
    provenance.write_provenance(tmp_path, seed=1)
    provenance.write_provenance(tmp_path, seed=2)
    about = yaml.safe_load((tmp_path / ".hydra" / "about.yaml").read_text("utf-8"))
    assert about["seed"] == 1 and about["torch"] and about["cores"] >= 1
