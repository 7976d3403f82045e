"""One step of ISTA as an encoder: a value worked out by hand, its form for inference, folding, files, export."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.exact import batch, dictionary
from tests.small import WORLD, experiment
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.ista import IstaBatchTopK, IstaJumpReLU
from unbraid.dictionary.dictionary import Dictionary
from unbraid.formats.export import export
from unbraid.runs.run import Run
from unbraid.training.loop import train


def test_a_code_is_corrected_by_what_the_first_one_left():
    made = Dictionary(2, 2, IstaJumpReLU(step=0.5)).double()
    made.W_dec.data.copy_(torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
    made.W_enc.data.copy_(made.W_dec.T)
    # Both read 1 and .6 of (1, 0); together they write (1.36, .48), which is (-.36, -.48) too much.
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    wanted = [1 + 0.5 * -0.36, 0.6 + 0.5 * (0.6 * -0.36 + 0.8 * -0.48)]
    assert made.encode(x)[0].tolist() == pytest.approx(wanted)
    made.threshold.data.fill_(0.5)  # .3, the second latent's, is below it; in the first codes it is not, below 2 times
    assert made.encode(x)[0].tolist() == pytest.approx([wanted[0], 0.0])
    made.activation = IstaJumpReLU(step=0.5, first=1.3)  # first codes above .65: the first alone, and nothing is left
    assert made.encode(x)[0].tolist() == pytest.approx([1.0, 0.6])


def test_a_step_of_almost_nothing_is_batch_topk():
    made, x = dictionary(IstaBatchTopK(4, step=1e-12)), batch()
    torch.testing.assert_close(made.encode(x), dictionary(BatchTopK(4)).encode(x), atol=1e-9, rtol=0)


def test_a_silent_dictionary_has_a_form_for_inference_that_is_silent():
    made = dictionary(IstaBatchTopK(4), shift=-1000.0)
    assert made.for_inference(batch()).encode(batch()).count_nonzero() == 0


@pytest.mark.parametrize("normalise", ["centre-scale", "whiten"])
def test_it_folds_is_read_back_and_is_refused_by_formats_that_have_no_room_for_it(normalise: str, tmp_path: Path):
    base = experiment(activation=IstaBatchTopK(3), tokens=1600)
    made = replace(base, training=replace(base.training, normalise=normalise))
    (folder,) = train([made], tmp_path / "runs")  # folding is checked as it is saved
    run = Run.open(folder)
    used, x = run.dictionary(), WORLD.sample(2048, seed=3).x
    assert isinstance(used.activation, IstaJumpReLU) and used.activation.first != 1
    assert float(used.codes(x).l0()) == pytest.approx(3, rel=0.15)
    with pytest.raises(ValueError, match="no library has an equivalent"):
        export(folder, tmp_path / "out", "saelens")
    assert not (tmp_path / "out").exists()
