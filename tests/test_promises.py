"""What the READMEs promise of faults, and the tests of it.

Each sentence stands in its README, word for word, and each test exists. A sentence there that
speaks of a fault and is not listed here fails.
"""

import ast
import re

import pytest
from helpers import ROOT

FAULTS, TERMINAL = "integration/test_faults.py", "integration/test_terminal.py"
RESUME, PROCESSES = "integration/test_resume.py", "integration/test_processes.py"
SWEEPS, POINTS = "integration/test_sweeps.py", "integration/test_fault_points.py"
PROMISES = {
    "README.md": {
        "Ctrl-C or SIGTERM finishes the window, saves, and prints how to resume": [
            f"{RESUME}::test_stopped_by_a_signal",
            "integration/test_printed_commands.py::test_of_an_interrupted_run",
        ],
        "A run that was killed at any moment resumes from its last checkpoint and, on a CPU, gives"
        " bit for bit the numbers of a run that was never interrupted": [
            f"{RESUME}::test_killed_at_random_moments",
            f"{FAULTS}::test_killed_while_saving_after_every_window",
            f"{POINTS}::test_some_points",
        ],
        "At most `callbacks.checkpoint.every_n_steps` windows are lost": [
            f"{POINTS}::test_some_points",
        ],
        "a damaged checkpoint is detected, and the one before it used": [
            "integration/test_every_byte.py::test_some_bytes",
            f"{FAULTS}::test_the_checkpoint_before_a_damaged_one_is_used",
        ],
        "Ctrl-C saves and returns": [
            "api/test_training_run.py::test_ctrl_c_saves_and_returns",
        ],
        "Loading a checkpoint runs no code in it": [
            "integration/test_security.py::test_no_command_runs_the_code_in_a_checkpoint",
        ],
    },
    "conf/README.md": {
        "A job that fails is reported at the end with the command that runs it by itself": [
            "integration/test_printed_commands.py::test_of_a_sweep_with_a_job_that_fails",
        ],
        "a sweep skips finished jobs, resumes the others exactly, and repeats failed ones": [
            f"{SWEEPS}::test_killed_in_the_second_job_and_started_again",
            f"{SWEEPS}::test_failed_jobs_run_again",
        ],
        "also after a kill, a search goes on as if it had not been interrupted": [
            f"{SWEEPS}::test_a_search_goes_on",
            "cli/test_search.py::test_interrupted_and_started_again",
        ],
        "saved, requeued, and resumed exactly": [
            "integration/test_launchers.py::test_a_job_that_is_told_to_make_room_goes_on_exactly",
            f"{PROCESSES}::test_a_job_of_slurm_is_queued_again",
        ],
        "a run whose time is spent says how to give more": [
            "integration/test_lightning_callbacks.py::test_a_run_whose_time_is_spent",
        ],
        "A misspelt key, a wrong type or a value out of range ends in one line and exit code 2,"
        " before there is a folder": [
            "cli/test_settings.py::test_bad_settings_of_train",
            "integration/test_robust.py::test_any_configuration_is_a_run_or_one_line",
        ],
    },
    "charrnn/callbacks/README.md": {
        "However a run ends, no more windows than those are lost": [f"{POINTS}::test_some_points"],
        "If last.ckpt is damaged, the next resume names it and uses previous.ckpt": [
            f"{FAULTS}::test_the_checkpoint_before_a_damaged_one_is_used",
        ],
        "On a full disk the last checkpoint stays, and training goes on and tries again": [
            f"{FAULTS}::test_a_disk_that_is_full_for_a_while",
            f"{FAULTS}::test_a_disk_that_stays_full",
        ],
        "later checkpoints, rows of metrics.csv and events are removed": [
            "callbacks/test_rewind.py::test_logs",
            "callbacks/test_rewind.py::test_checkpoints",
        ],
    },
    "charrnn/checkpoint/README.md": {
        "reading it runs no code, so untrusted checkpoints are safe to open": [
            "integration/test_security.py::test_no_command_runs_the_code_in_a_checkpoint",
        ],
        "Where `last.ckpt` is damaged, `resume=` takes the newest file that is not and says so": [
            f"{FAULTS}::test_the_checkpoint_before_a_damaged_one_is_used",
        ],
        "a run that was killed at any moment resumes, bit for bit": [
            f"{FAULTS}::test_killed_while_saving_after_every_window",
        ],
        "a full disk ends no training, and the last checkpoint stays": [
            f"{FAULTS}::test_a_disk_that_is_full_for_a_while",
        ],
        "a loss of power leaves a run that resumes, or one line": [f"{POINTS}::test_every_point"],
        "two processes do not train in one folder": [
            f"{FAULTS}::test_two_processes_do_not_resume_one_run",
            "runs/test_lock.py::test_second_holder_gets_none",
        ],
        "each line that makes this so is needed": [
            "integration/test_mutations.py::test_a_line_taken_away_is_noticed",
        ],
        "a terminal that goes away, closed streams, any environment": [
            f"{TERMINAL}::test_a_run_whose_terminal_goes_away_saves",
            "integration/test_command_line.py::test_training_outlives_its_output",
            "integration/test_environment.py::test_environment",
        ],
        "a damaged checkpoint is detected, and the one before it used": [
            "integration/test_every_byte.py::test_every_byte",
        ],
        "`atomic_write`, by which runs, reports and exports write their files": [
            "test_one_way.py::test_files_are_written_in_one_way",
        ],
    },
    "charrnn/cli/README.md": {
        "other commands than train end at once at Ctrl-C, and leave files as they were": [
            "cli/test_interrupts.py::test_it_ends_at_once_and_leaves_nothing",
        ],
    },
    "charrnn/runs/README.md": {
        "skips finished jobs, resumes interrupted ones exactly, runs failed ones again": [
            f"{SWEEPS}::test_killed_in_the_second_job_and_started_again",
        ],
        "A job that fails does not end the sweep": [f"{SWEEPS}::test_a_grid_with_failing_jobs"],
        "only one run trains in a folder": ["runs/test_lock.py::test_second_holder_gets_none"],
    },
    "charrnn/training/README.md": {
        "goes back to the last good checkpoint and on at": [
            "integration/test_rollback.py::test_rollback_resumes_at_a_lower_rate",
        ],
        "SIGINT, SIGTERM, SIGHUP and requests to requeue, acted on between two windows": [
            f"{RESUME}::test_stopped_by_a_signal",
            f"{TERMINAL}::test_a_run_whose_terminal_goes_away_saves",
        ],
        "A run can resume with any number of processes that keeps the rows": [
            f"{PROCESSES}::test_from_two_processes_into_one",
        ],
        "SIGUSR1 (`#SBATCH --signal=USR1@60`, `--requeue`) saves and requeues the job": [
            f"{PROCESSES}::test_a_job_of_slurm_is_queued_again",
        ],
    },
    "charrnn/evaluation/README.md": {
        "where the model computes other numbers it is refused, as is a damaged one, and nothing is"
        " written": [
            "evaluation/test_compression.py::test_no_byte_of_an_archive_can_be_changed",
            "evaluation/test_compression.py::test_a_machine_with_other_numbers_is_refused",
        ],
    },
}
"""For each README: a sentence, or the part of it that promises, and its tests."""
WORDS = re.compile(
    r"\b(killed|kill|damaged|full disk|interrupted|Ctrl-C|SIGTERM|SIGHUP|loss of power|torn)\b"
)
OTHERS = re.compile(
    # Not promises: what the words of a row mean, who does it, and where to look.
    r"signals\.py|serialization\.py|newest\.py|signal ends the run|interruption|test_|signal ends"
    r"|spite of a full|survive a full|charrnn tensorboard|report\.html|job\.json|errors\.py"
    r"|page of a run|Ctrl-C returns|interrupts\.py|named in a line"
)


def text_of(page):
    return re.sub(r"\s+", " ", (ROOT / page).read_text("utf-8"))


ROWS = [(page, words) for page, promises in PROMISES.items() for words in promises]


@pytest.mark.parametrize(("page", "words"), ROWS)
def test_a_promise_is_there_and_has_its_tests(page, words):
    assert words in text_of(page), f"{page} no longer says: {words}"
    for test in PROMISES[page][words]:
        file, _, name = test.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test


def test_no_promise_is_without_a_test():
    pages = [ROOT / "README.md", ROOT / "conf" / "README.md", *ROOT.glob("charrnn/*/README.md")]
    for file in pages:
        page = file.relative_to(ROOT).as_posix()
        for sentence in re.split(r"(?<=[.;:|])\s|\|", text_of(page)):
            if not WORDS.search(sentence) or OTHERS.search(sentence):
                continue
            known = [
                w for w in PROMISES.get(page, ()) if w in sentence or sentence.strip(" .;:") in w
            ]
            assert known, f"{page}: {sentence}"
