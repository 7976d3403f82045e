"""The published absorption fraction, worked out by hand."""

import importlib.util
from pathlib import Path

import torch

from unbraid.saebench.bench import DRIVER


def script(name: str):
    path: Path = DRIVER.parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_the_share_of_all_latents_that_the_main_ones_do_not_supply():
    every = torch.tensor([2.0, 2.0, -1.0, 4.0, 1.0, 1.0])
    main = torch.tensor([1.0, 0.0, 0.0, 3.0, -1.0, 2.0])
    wanted = torch.tensor([3.0, 3.0, 3.0, 2.0, 3.0, 3.0])
    # Half; all; nothing supplied; main latents suffice; more than all is all; others that take away are none.
    torch.testing.assert_close(
        script("published").fractions(every, main, wanted), torch.tensor([0.5, 1.0, 0.0, 0.0, 1.0, 0.0])
    )
