"""Every name of the package, those of flows too."""

import inspect

import medaction
from medaction.flows.distill import distill


def test_every_public_name_is_there_and_tells_what_it_is() -> None:
    for name in medaction._HOME:
        assert name in dir(medaction)
        assert inspect.getdoc(getattr(medaction, name)), name
    assert medaction.distill is distill
