"""Priors given by name: parsed from text, described as text, put in the place of a program's own."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch.distributions import constraints

from vihier.errors import VihierError
from vihier.models.support import support_of

PRIORS: dict[str, tuple[Callable[..., Any], int]] = {
    "Normal": (dist.Normal, 2),
    "StudentT": (dist.StudentT, 3),
    "HalfNormal": (dist.HalfNormal, 1),
    "HalfCauchy": (dist.HalfCauchy, 1),
    "Exponential": (dist.Exponential, 1),
    "Gamma": (dist.Gamma, 2),
    "InverseGamma": (dist.InverseGamma, 2),
    "LogNormal": (dist.LogNormal, 2),
}

_CALL = re.compile(r"\s*([A-Za-z]+)\s*\(([^()]*)\)\s*")


def parse_prior(text: str) -> torch.distributions.Distribution:
    """Read a prior such as `Normal(3, 1)`; the text is parsed, never evaluated.

    Raises
    ------
    VihierError
        If the text is not one of the known distributions with the right number of finite numbers.

    Examples
    --------
    >>> parse_prior("Normal(3, 1)").stddev.item()
    1.0
    """
    match = _CALL.fullmatch(text)
    if match is None or match[1] not in PRIORS:
        raise VihierError(f"prior {text!r}: not understood; write one of {', '.join(PRIORS)} e.g. Normal(0, 3)")
    family, n_arguments = PRIORS[match[1]]
    try:
        numbers = [float(part) for part in match[2].split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != n_arguments or not all(math.isfinite(x) for x in numbers):
        raise VihierError(f"prior {text!r}: {match[1]} takes {n_arguments} finite number(s)")
    try:
        return family(*(torch.tensor(x, dtype=torch.float64) for x in numbers), validate_args=True)
    except ValueError:
        raise VihierError(f"prior {text!r}: scales, rates and degrees of freedom must be positive") from None


def describe_prior(prior: Any) -> str:
    """Describe a prior in the form that `parse_prior` reads.

    Examples
    --------
    >>> describe_prior(dist.Normal(3.0, 1.0))
    'Normal(3, 1)'
    """
    numbers = []
    for name in prior.arg_constraints:
        if name not in ("probs", "logits"):
            # The shortest decimal that is the same number in its own precision: 0.01, not 0.00999999978.
            value = torch.as_tensor(getattr(prior, name)).detach().cpu().numpy()
            numbers.append(f"{float(str(value[()])):.15g}")
    return f"{type(prior).__name__}({', '.join(numbers)})"


def normalise_priors(priors: Mapping[str, Any] | None) -> dict[str, str]:
    """Bring a `priors=` argument (texts or distributions) to site name -> text, sorted by name.

    Raises
    ------
    VihierError
        If a value is neither the text of a known distribution nor a scalar distribution of a known family.
    """
    texts: dict[str, str] = {}
    for name in sorted(priors or {}):
        value = (priors or {})[name]
        if isinstance(value, torch.distributions.Distribution):
            if type(value).__name__ not in PRIORS or value.batch_shape or value.event_shape:
                raise VihierError(f"prior of {name!r}: give a scalar {', '.join(PRIORS)}, not {value}")
            value = describe_prior(value)
        elif not isinstance(value, str):
            raise VihierError(f"prior of {name!r}: give a distribution or a text such as 'Normal(0, 3)', not {value!r}")
        texts[name] = describe_prior(parse_prior(value))
    return texts


def _in_words(distribution: Any) -> str:
    support = support_of(distribution)
    names = {constraints.real: "all numbers", constraints.positive: "positive"}
    return names.get(support, str(support))


class _Override(Messenger):
    def __init__(self, priors: Mapping[str, str]) -> None:
        super().__init__()
        self.priors = priors

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        text = self.priors.get(msg["name"])
        if text is None:
            return
        old = msg["fn"]
        prior = parse_prior(text)
        if msg["is_observed"]:
            raise VihierError(f"prior of {msg['name']!r}: the site is observed; only what is latent has a prior")
        if support_of(prior) is not support_of(old):
            raise VihierError(
                f"prior {msg['name']}={text}: its values are {_in_words(prior)}, those of the site {_in_words(old)}; "
                "give a distribution over the same values"
            )
        # Scalars move to the run's device and dtype through the default ones, as in the program itself.
        family, _ = PRIORS[type(prior).__name__]
        numbers = [float(x) for x in text[text.index("(") + 1 : -1].split(",")]
        msg["fn"] = family(*(torch.tensor(x) for x in numbers)).expand(old.batch_shape)


def with_priors(model: Callable[[Any], Any], priors: Mapping[str, str]) -> Callable[[Any], Any]:
    """Return the program with the priors of the named sites replaced.

    Raises
    ------
    VihierError
        When run: if a prior's values are not those of its site (a Normal for a scale, say).
    """
    if not priors:
        return model

    def overridden(batch: Any) -> Any:
        with _Override(priors):
            return model(batch)

    overridden.__name__ = getattr(model, "__name__", "model")
    return overridden


def check_prior_names(priors: Mapping[str, str], sites: list[str]) -> None:
    """Refuse priors for sites that the program does not have.

    Raises
    ------
    VihierError
        Naming the site and the program's own.
    """
    for name in priors:
        if name not in sites:
            raise VihierError(f"prior of {name!r}: the model has no such site; its sites: {', '.join(sites)}")
