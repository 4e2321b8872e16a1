"""The space of a search: overrides of Hydra's grammar as Optuna's distributions."""

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from charrnn.errors import InputError


def parse_space(
    params: dict[str, str], arguments: list[str], loader
) -> tuple[list[str], dict[str, Override]]:
    """The overrides that all jobs share, and those that are searched, by key.

    Args:
        params: values of Hydra's grammar by key, which those of ``arguments`` replace.
        arguments: overrides, as on the command line.
        loader: Hydra's, which knows the options of a group.
    """
    parser = OverridesParser.create(config_loader=loader)
    overrides = {}
    for text in [*(f"{key}={value}" for key, value in params.items()), *arguments]:
        override = parser.parse_override(text)
        overrides.pop(override.key_or_group, None)
        overrides[override.key_or_group] = override
    fixed = [o.input_line for o in overrides.values() if not o.is_sweep_override()]
    swept = {o.get_key_element(): o for o in overrides.values() if o.is_sweep_override()}
    if not swept:
        raise InputError("a search: no key has several values; give KEY=interval(LOW,HIGH)")
    return fixed, swept


def distribution(optuna, override: Override):
    """The distribution of a key: of an interval its numbers, otherwise a choice of its values."""
    value, kinds = override.value(), optuna.distributions
    if isinstance(value, IntervalSweep):
        ends = value.start, value.end
        whole = all(isinstance(end, int) for end in ends)
        kind = kinds.IntDistribution if whole else kinds.FloatDistribution
        return kind(*ends, log="log" in value.tags)
    if isinstance(value, RangeSweep) and not value.shuffle:
        numbers: Sequence = range(int(value.start), int(value.stop), int(value.step))
        if all(isinstance(n, int) for n in (value.start, value.stop, value.step)) and numbers:
            return kinds.IntDistribution(min(numbers), max(numbers), step=abs(numbers.step))
    return kinds.CategoricalDistribution(list(override.sweep_string_iterator()))
