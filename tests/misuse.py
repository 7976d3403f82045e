# pyright: reportArgumentType=false
"""Misuse of the front door, and a part of what each is told. Run as a program, it prints what each raises as JSON."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

import unbraid as ub

X = np.random.default_rng(0).normal(size=(1200, 12)).astype("float32")

BASES = {"topk": ub.Member(objective=ub.Objective(reconstruction=ub.terms.Reconstruction()), activation=ub.TopK(4))}

CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "no width": (lambda: ub.fit(X, d_sae=0), "d_sae"),
    "a width that is text": (lambda: ub.fit(X, d_sae="32"), "d_sae is '32'"),
    "k above the width": (lambda: ub.fit(X, d_sae=8, activation=ub.TopK(16)), "k = 16"),
    "an activation by name": (lambda: ub.fit(X, d_sae=8, activation="topk"), "activation is 'topk'"),
    "an activation that is a class": (lambda: ub.fit(X, d_sae=8, activation=ub.TopK), "activation"),
    "a path for activations": (lambda: ub.fit("acts.npy", d_sae=8), "which is text; give an array"),
    "a class of sources": (lambda: ub.fit(ub.World, d_sae=8), "give one of them: World(…)"),
    "nan": (lambda: ub.fit(np.where(X > 3, np.nan, X), d_sae=8), "NaN or infinite"),
    "one dimension": (lambda: ub.fit(X[0], d_sae=8), "must be [..., d_in]"),
    "a mapping": (lambda: ub.fit({"x": X}, d_sae=8), "expected a tensor or array"),
    "an empty loader": (lambda: ub.fit(iter(()), d_sae=8), "gave no batch"),
    "batches that are mappings": (lambda: ub.fit([{"x": X}], d_sae=8), "batch 0 is a dict"),
    "batches of text": (lambda: ub.fit([X.astype(str)], d_sae=8), "activations of batch 0 are an array of <U"),
    "batches of two widths": (lambda: ub.fit([X, X[:, :4]], d_sae=8), "batch 1 has 4 dimensions"),
    "a penalty by name": (lambda: ub.fit(X, d_sae=8, penalties="l1"), "penalties are 'l1'"),
    "a penalty that is a class": (lambda: ub.fit(X, d_sae=8, penalties=[ub.terms.L1]), "give one of them: L1()"),
    "a penalty that is a function": (lambda: ub.fit(X, d_sae=8, penalties=[lambda step: 0]), "cannot be stored"),
    "a target without a penalty": (lambda: ub.fit(X, d_sae=8, target_l0=4), "there is none; give unbraid.terms.L1()"),
    "a misspelt option": (lambda: ub.fit(X, d_sae=8, batchsize=4), "did you mean 'batch_size'?"),
    "no tokens": (lambda: ub.fit(X, d_sae=8, tokens=0), "tokens is 0"),
    "a seed that is text": (lambda: ub.fit(X, d_sae=8, seed="1"), "seed is '1'"),
    "a save that is a number": (lambda: ub.fit(X, d_sae=8, save=3), "save is 3; expected a path"),
    "a callback that is a function": (lambda: ub.fit(X, d_sae=8, callbacks=print), "Callback"),
    "nothing to train": (lambda: ub.train([], "x"), "there is no experiment"),
    "a geometry there is not": (
        lambda: ub.Factorial(source=ub.World(), bases=BASES, sparsities=(4,), geometries=("white",)),
        "must be made of items that are 'raw' or 'whitened'",
    ),
    "a study by name": (lambda: ub.train("small", "x"), "expected an unbraid.Experiment"),
    "an eval by a wrong name": (lambda: ub.score(ub.Dictionary(12, 8, ub.TopK(2)), X, evals="recovry"), "did you mean"),
    "activations of another width": (lambda: ub.score(ub.Dictionary(12, 8, ub.TopK(2)), X[:, :4]), "explains 12"),
    "factors with a source": (lambda: ub.score(ub.Dictionary(64, 8, ub.TopK(2)), ub.World(), factors=X), "array"),
    "no run": (lambda: ub.compare([]), "there is no run folder"),
    "nowhere": (lambda: ub.load("runs/nowhere"), "runs/nowhere"),
}


def raised(call: Callable[[], Any]) -> dict[str, str]:
    """Return the type and text of what a call raises."""
    try:
        call()
    except Exception as error:
        return {"type": type(error).__name__, "message": str(error)}
    return {"type": "nothing", "message": ""}


if __name__ == "__main__":
    print(json.dumps({case: raised(call) for case, (call, _) in CASES.items()}))
