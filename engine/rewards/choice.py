"""What a configuration's ``reward`` section stands for, and how a run keeps it.

A scheme may be a file, and components are code: both may change after a run was created. So the
configuration of a run holds the weights and thresholds themselves, and of each component the
absolute place and the stamp of its content.
"""

import difflib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from engine.config import FrozenScheme, RewardConfig
from engine.errors import UserError
from engine.rewards import custom, scheme_file
from engine.rewards.custom import CustomComponent
from engine.rewards.schemes import SCHEMES, Scheme
from engine.text import one_line


class Reward(NamedTuple):
    """Everything that scores a completion."""

    scheme: Scheme
    custom: tuple[CustomComponent, ...] = ()


def freeze(reward: RewardConfig, *, allow_code: bool = False) -> RewardConfig:
    """``reward`` as a new run keeps it; a scheme that an earlier run froze stays as it was.

    Args:
        allow_code: whether the person says that its components may run; those of an earlier
            run, for which a person has said so, need no second time.

    Raises:
        UserError: unknown or bad scheme, or a component that is missing or not allowed.
    """
    names = custom.names(reward.components)
    components = custom.allow(reward.components) if allow_code else reward.components
    for spec in components:
        custom.refuse_unless_allowed(spec)
    named = reward.scheme if reward.scheme in SCHEMES else str(_path(reward.scheme).absolute())
    scheme = _scheme(named, reward.frozen, names)
    return reward.model_copy(
        update={
            "scheme": named,
            "components": components,
            "frozen": FrozenScheme(
                scheme=named, weights=dict(scheme.weights), thresholds=asdict(scheme.thresholds)
            ),
        }
    )


def resolve(reward: RewardConfig) -> Reward:
    """The scheme and the components of ``reward``; a frozen scheme wins over the file it was.

    Raises:
        UserError: unknown or bad scheme, or a component that is missing, changed or not
            allowed.
    """
    names = custom.names(reward.components)
    scheme = _scheme(reward.scheme, reward.frozen, names)
    return Reward(scheme, custom.load(reward.components))


def _scheme(scheme: str, frozen: FrozenScheme | None, names: Sequence[str]) -> Scheme:
    # A configuration made out of a run's may name another scheme by now.
    if frozen is not None and frozen.scheme == scheme:
        values = {"weights": frozen.weights, "thresholds": frozen.thresholds}
        return scheme_file.build(Path(scheme).stem, values, names, where="reward.frozen")
    if scheme not in SCHEMES:
        return scheme_file.load(_path(scheme), names)
    named = SCHEMES[scheme]
    return Scheme(named.name, {**named.weights, **dict.fromkeys(names, 0.0)}, named.thresholds)


def _path(scheme: str) -> Path:
    """The file that ``scheme`` names.

    Raises:
        UserError: it looks like a name.
    """
    if "/" not in scheme and not scheme.endswith((".yaml", ".yml")):
        near = difflib.get_close_matches(scheme, SCHEMES, n=1)
        fix = f"did you mean {near[0]}?" if near else f"use one of: {', '.join(SCHEMES)}"
        raise UserError(
            f"no scheme called {one_line(scheme, 40)!r}",
            where="reward.scheme",
            fix=f"{fix} A file of your own ends in .yaml" if near else f"{fix}, or a YAML file",
        )
    path = Path(scheme)
    return path.expanduser() if path.parts[:1] == ("~",) else path
