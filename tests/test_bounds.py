"""Every number that a user can set has bounds beside it, and what is beyond them is refused when the object is made.

A new class of settings is held to this by being there: give it one line in `REFUSED`.
"""

import dataclasses
import importlib
import inspect
import math
import pkgutil
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from annotated_types import Ge, Gt, Le, Lt

import unbraid
from tests.small import experiment
from unbraid.comparison.card import ClaimCard
from unbraid.config.settings import Settings, annotations, bounds_of
from unbraid.dictionary.activations import ista
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.matching_pursuit import MatchingPursuit
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.config import DictionaryChoices, DictionaryConfig
from unbraid.dictionary.from_truth import SupervisedProbes, TrueDirections
from unbraid.dictionary.interchange_directions import InterchangeDirections
from unbraid.dictionary.linear_bases import IndependentComponents
from unbraid.experiment.experiment import Experiment, Training
from unbraid.experiment.factorial import Factorial
from unbraid.experiment.study import Member, Study
from unbraid.experiment.tuning import Tuning
from unbraid.formats.imported import Imported
from unbraid.formats.widen import Extension
from unbraid.objective.objective import Objective, TargetL0, Term
from unbraid.saebench.bench import Bench
from unbraid.saebench.environment import NOT_MADE
from unbraid.sources.cached import Cached
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.synth import Synth
from unbraid.sources.tensor import Activations
from unbraid.sources.world.forest import Forest
from unbraid.sources.world.magnitudes import Magnitudes
from unbraid.sources.world.world import World
from unbraid.steering.exponential_dct import ExponentialDct
from unbraid.steering.linear_dct import LinearDct
from unbraid.steering.melbo import Melbo as MelboFit
from unbraid.steering.quadratic_dct import QuadraticDct
from unbraid.terms.causal import (
    causal_head,
    effect,
    effect_sketch,
    functional_orthogonality,
    hessian,
    interaction,
    jacobian_l1,
    melbo,
    orthogonal_jacobian,
    readback,
)
from unbraid.terms.controls import masked
from unbraid.terms.dead_latents import aux_k
from unbraid.terms.geometry import (
    c2r,
    fourth_power,
    local_ima,
    meta_sae,
    orthogonality,
    orthogonality_hinge,
    repulsion,
    weight_decay,
)
from unbraid.terms.independence import correlation, factor_vae, hsic, total_correlation
from unbraid.terms.independence import factorised_support as support
from unbraid.terms.reconstruction import nested_reconstruction, quantised, reconstruction, sampled_prefixes
from unbraid.terms.sparsity import (
    description_length,
    frequency,
    gate_kl,
    l1,
    log_cosh,
    lp,
    p_annealing,
    quadratic_l0,
    tanh,
)
from unbraid.terms.weak_supervision import redundancy, slowness, temporal

NAN, SPAN = math.nan, (0.2, 0.4)
MEMBER = Member(objective=Objective(reconstruction=reconstruction.Reconstruction()))

EXAMPLES: list[Settings] = [
    Activations(torch.eye(4)),
    experiment(),
    Objective(reconstruction=reconstruction.Reconstruction()),
    MEMBER,
    Study(source=World(), members={"a": MEMBER}),
    Factorial(source=World(), bases={"a": MEMBER}, sparsities=(4,)),
    ClaimCard(
        claim=1,
        study="s",
        prediction="p",
        primaries=("recovery.f1",),
        seeds=(0, 1, 2),
        calibration_seeds=(3, 4, 5),
        settings=5,
        command="c",
        version="1",
    ),
    Extension("run"),
    Imported(folder="sae", sha256="0" * 64, format="saelens", architecture="standard"),
    Cached(folder="cache"),
    Forest(12, 2, 2, (SPAN,), 0.0, 0),
    Magnitudes("uniform", 0.1, 2),
    Bench(environment=NOT_MADE, work=Path("work")),
]
"""Of classes with fields that have no default."""

REFUSED: dict[type[Settings], dict[str, list[Any]]] = {
    Training: {
        "tokens": [-1, 1.0, True], "batch_size": [-5, 0, 2.5, "8"], "lr": [-1.0, 0.0, NAN, math.inf],
        "threshold_lr": [-1.0], "betas": [(1, 2), (0.9, 1.0), (0.9,), [0.9, 0.99], 0.9], "warmup": [-0.1, 2, 0.9],
        "decay": [-1, 5, 0.99], "clip": [0, -1.0], "weight_decay": [-1.0], "dead_after": [-1, 0],
        "resample_every": [-1], "normalise": ["centre", None], "matmul": ["float16"], "data_seed": [-1, 2**64, "0"],
        "tf32": [1, "yes", None], "kernels": ["cuda", None],
        "whiten_ridge": [-1e-3, NAN, math.inf, "1"], "whiten_power": [-0.1, 1.1, NAN, None],
        "device": ["gpu0", "", "cuda:x", 0, "cpu\n"],
    },
    Experiment: {
        "name": ["", "Upper", "../up", "a/b", "-a", "a" * 201, "a\n", 3], "seed": [-1, "one", 1.0, None],
        "source": ["world", None], "objective": [{}], "dictionary": [None], "training": [()], "control": [0],
    },
    DictionaryConfig: {
        "d_sae": [0, -4, 8.0, 16], "activation": ["TopK", 32], "frozen": [("W",), "W_dec"],
        "min_cosine_to_init": [1.0, -1.1, NAN], "orthonormal_blocks": [-8, 7], "aligned": [1, None],
    },
    Objective: {
        "reconstruction": [None, "fvu"], "ramp": [-0.1, 2.0, NAN], "target_l0": [3.0],
        "penalties": [[l1.L1()], {"a": 1.0}, {"a/b": l1.L1()}, {"reconstruction": l1.L1()}, {3: l1.L1()}],
    },
    TargetL0: {"l0": [0, -3.0], "penalty": ["", 1], "rate": [0, -1.0], "lookahead": [-1.0]},
    DictionaryChoices: {"min_cosine_to_init": [2.0, -1.5], "orthonormal_blocks": [-1], "frozen": [("atoms",)]},
    Member: {"min_cosine_to_init": [2.0], "orthonormal_blocks": [-1], "frozen": [("atoms",)], "trained": ["no"],
             "d_sae": [0], "l0": [0.0], "strength": [0.0, 0.1], "base": ["No"], "term": ["l1"]},
    Study: {
        "d_sae": [0], "seeds": [(), (0, 0), (-1,), (0.5,), 3, (True,)],
        "members": [{}, {"Bad name": MEMBER}, {"a": experiment()}, []],
    },
    Factorial: {
        "d_sae": [0], "seeds": [(), (0, 0), (1000,)], "calibration_seeds": [(), (7,), (-1,)],
        "bases": [{}, {"A": MEMBER}],
        "terms": [{"x": {}}, {"x": l1.L1()}], "geometries": [(), ("white",), ("raw", "raw")], "strengths": [(), (0.0,)],
        "base_settings": [{}, {"training.lr": (0.0,)}], "sparsities": [(), (0,), (4, 4)], "widths": [(0,), (8, 8)],
        "sparsity_weights": [(-1.0,), (0.1,)], "tuning_sparsities": [(5,)], "controls": [{"a": MEMBER}],
    },
    ClaimCard: {
        "claim": [0, 3, "1"], "study": ["", "../s"], "primaries": [(), ("f1",), ("a.b", "c.d", "e.f")],
        "seeds": [(), (0, 1), (-1, 0, 1), (0, 0, 1), (1, 2, 3)], "settings": [0, 1.5],
        "calibration_seeds": [(3, 4), (0, 4, 5), (3, 3, 4)],
        "methods": [(), "a"], "fvu_cap": [0.0, NAN], "smallest_effects": [{"recovery.f1": 0.0}, {"recovery.mcc": 0.1}],
        "underpowered": ["no"], "prediction": [""], "command": [""], "version": ["", 1],
    },
    Tuning: {"strength": [0.0, NAN], "field": ["training.lr", ""], "factor": [2.0, 0.0]},
    TopK: {"k": [0, -1, 2.0, True, "3", None], "first_k": [0.5, NAN], "anneal": [0.0, 1.1, 0.5]},
    BatchTopK: {"k": [0, 1.5], "first_k": [0.5], "anneal": [0.0, 0.5]},
    JumpReLU: {"bandwidth": [-0.1, NAN], "initial_l0": [0]},
    MatchingPursuit: {"k": [0], "residual": [-1.0], "stop_on_repeat": [1]},
    TrueDirections: {"rows": [0], "l2": [0.0]},
    SupervisedProbes: {"rows": [-1], "l2": [-1.0]},
    Extension: {"folder": ["", None]},
    Imported: {"folder": [""], "sha256": ["abc", "G" * 64]},
    MelboFit: {
        "contexts": [0], "context_seed": [-1], "last": [-1], "radius": [-1.0, NAN], "p": [0.5, 1], "q": [0, 9.0],
        "steps": [0], "lr": [0.0], "betas": [(0.9, 1)], "orthogonality": ["soft"],
    },
    LinearDct: {"rows": [0], "rounds": [0]},
    QuadraticDct: {"rounds": [0]},
    ExponentialDct: {"rows": [0], "steps": [-1], "lr": [0], "ridge": [-1e-3]},
    World: {
        "factors": [0, 2**40], "d_in": [0, 2.0], "coherence": [-0.1, 1.1], "l0": [0.0], "roots": [0], "depth": [-1, 99],
        "child_given_parent": [(0.0, 0.5), (0.8, 0.2), (), 0.5, (0.1, 0.2, 0.3)], "exclusive": [1.1], "zipf": [-1.0],
        "correlation": [1.0], "magnitudes": ["normal"], "spread": [-0.1], "dense_probability": [(0.9, 0.5), (0, 1)],
        "gate": ["soft"], "threshold": [NAN, "low"], "sharpness": [0], "effective": [2], "seed": [-1],
    },
    Forest: {"factors": [0], "spans": [((0.4, 0.2),), ((0, 1),)], "exclusive": [2.0]},
    Magnitudes: {"kind": ["odd"], "spread": [-1.0, 0.9], "levels": [0]},
    LanguageModel: {
        "model": [""], "revision": [None, 3], "layer": [-1, 1.0], "site": ["resid_mid"], "text": [""], "context": [1],
        "max_norm_ratio": [-1.0, NAN], "buffer_tokens": [0, 5], "eval_share": [1, -0.1], "epochs": [0],
        "downstream_layer": [-7, -2], "batch": [0], "dtype": ["int8"], "device": ["gpu0", "CPU"], "mask_special": [2],
    },
    Cached: {"folder": ["", 3], "epochs": [0, True]},
    Activations: {"eval_share": [-0.1, 1.5], "epochs": [-1, True], "rows": [-1], "width": [1.5]},
    Synth: {
        "num_features": [0], "exponent": [0], "max_prob": [0, 2, 1e-9], "branching_factor": [1], "max_depth": [0],
        "mutually_exclusive_portion": [-1], "orthogonalization_steps": [-1], "correlation_scale": [2.0],
        "mean_firing_magnitudes": [(-1.0, 1.0), (1.0,)], "bias": [-1.0], "seed": [-1],
    },
    Bench: {"device": ["tpu"], "threads": [0], "limit": [0, -60.0, NAN], "size": ["big"], "dtype": ["int8"]},
    l1.L1: {"weight": [-1.0, NAN, "1"], "gradient_ratio": [-1.0], "start": [1.0, -0.1], "every": [0, 1.5]},
    aux_k.AuxK: {"weight": [-1.0], "k_share": [0.0]},
    c2r.C2R: {"form": ["mean"], "exponent": [-1.0], "chunk": [1]},
    causal_head.CausalHead: {"draws": [0], "taught": [-1], "most": [0], "rate": [0.0, 1.1], "decay": [1.0]},
    correlation.Correlation: {"rows": [1], "rarest": [1.0], "decay": [-0.1]},
    description_length.DescriptionLength: {"step": [0.0], "temperature": [0.0], "leak": [0, 1], "apart": [0]},
    effect.Effect: {"columns": [-1], "radius": [-1.0], "ridge": [0.0], "probes": [0], "decay": [1.0]},
    effect_sketch.EffectSketch: {"rows": [0], "refresh": [0], "cap": [-1.0, math.inf]},
    factor_vae.FactorVae: {"rows": [1], "block": [0], "lr": [0], "betas": [(1, 2)], "patience": [0]},
    fourth_power.FourthPower: {"chunk": [1]},
    functional_orthogonality.FunctionalOrthogonality: {"columns": [0], "radius": [-1]},
    gate_kl.GateKl: {"temperature": [0.0], "capacity": [-1.0], "anneal": [1.1], "rows": [-1], "apart": [0]},
    hessian.Hessian: {"columns": [1], "samples": [1]},
    hsic.Hsic: {"rows": [1], "waves": [0]},
    interaction.Interaction: {"most": [1], "samples": [1], "floor": [-1.0], "radius": [-3.0]},
    local_ima.LocalIma: {"rows": [0], "most": [0], "ridge": [-1.0]},
    log_cosh.LogCosh: {"sharpness": [0.0]},
    lp.Lp: {"p": [0.0], "floor": [-1.0]},
    masked.Masked: {"share": [-0.1, 1.1]},
    melbo.MelboReward: {"p": [0.5], "q": [0.0], "cap": [-1.0], "radius": [NAN]},
    meta_sae.MetaSAE: {"share": [0, 2], "k": [0], "sample": [0], "steps": [-1], "lr": [0]},
    nested_reconstruction.NestedReconstruction: {"shares": [(), (0.5,), (0.5, 0.2, 1.0), (0.0, 1.0), 1.0],
        "inner_weight": [-1.0], "order": ["random"], "levels": ["max"], "detached": [1]},
    orthogonal_jacobian.OrthogonalJacobian: {"columns": [1], "samples": [1]},
    orthogonality.Orthogonality: {"chunk": [1]},
    orthogonality_hinge.OrthogonalityHinge: {"threshold": [1.0, -0.1], "chunk": [0]},
    p_annealing.PAnnealing: {"begin": [1.0], "end": [0.1, 2], "p_end": [0.0], "changes": [0], "memory_steps": [0]},
    quantised.Quantised: {"levels": [0], "commit": [-1.0], "decay": [1.1]},
    readback.Readback: {"columns": [0], "rows": [0], "size": [-1.0]},
    redundancy.Redundancy: {"form": ["vic"], "decorrelation": [-1], "pairs": [1]},
    repulsion.Repulsion: {"temperature": [0.0], "chunk": [1], "sample": [1]},
    sampled_prefixes.SampledPrefixes: {"prefixes": [0], "power": [0.0]},
    slowness.Slowness: {"pairs": [0]},
    support.Support: {"pairs": [0, 2**14], "values": [0], "points": [0], "reach": [2**15], "least": [-1.0]},
    tanh.Tanh: {"scale": [0.0]},
    temporal.Temporal: {"share": [0.0], "pairs": [1]},
    total_correlation.TotalCorrelation: {"blocks": [0], "size": [1], "noise": [0.0], "excess": [NAN]},
    weight_decay.WeightDecay: {"power": [3, 1.0, True]},
    quadratic_l0.QuadraticL0: {"target": [0.0, -1.0, NAN]},
    frequency.Frequency: {"scale": [0.0, 1.5]},
    jacobian_l1.JacobianL1: {"columns": [0], "radius": [-1.0]},
    ista.IstaBatchTopK: {"k": [0], "step": [0.0, -1.0]},
    ista.IstaJumpReLU: {"step": [0.0], "first": [-1.0]},
    IndependentComponents: {"steps": [0]},
    InterchangeDirections: {"rows": [0]},
}  # fmt: skip
"""Of each class, values that one field cannot have while the others have their defaults."""

UNBOUNDED: dict[tuple[type[Settings], str], str] = {
    (World, "threshold"): "a gate may open anywhere; below every magnitude it is always open",
    (total_correlation.TotalCorrelation, "excess"): "below chance, a block is whatever fires together",
}
"""Numbers that may be any, with the reason."""


def own_classes() -> list[type[Settings]]:
    """Every dataclass of settings in the package."""
    for module in pkgutil.walk_packages(unbraid.__path__, "unbraid."):
        # For SAEBench's own environment, and for one with triton.
        if not module.name.startswith(("unbraid.saebench.driver", "unbraid.dictionary.triton_kernels")):
            importlib.import_module(module.name)
    found, left = set(), [Settings]
    while left:
        left += (more := left.pop().__subclasses__())
        found |= {c for c in more if dataclasses.is_dataclass(c) and c.__module__.startswith("unbraid.")}
    return sorted((c for c in found if not inspect.isabstract(c)), key=lambda c: (c.__module__, c.__name__))


def made(cls: type[Settings], **changed: Any) -> Settings:
    """`cls` with some fields changed, as it is made outside of tests: here jaxtyping looks at the types first."""
    example = next((e for e in EXAMPLES if type(e) is cls), None) or cls()
    held: Any = object.__new__(cls)
    inspect.unwrap(cls.__init__)(held, **{**vars_of(example), **changed})
    return held


def vars_of(settings: Any) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings) if field.init}


def numbers_in(hint: Any) -> list[list[Any]]:
    """The bounds of every number that an annotation holds."""
    kind, bounds = bounds_of(hint)
    return [bounds] if kind in (int, float) else [found for part in get_args(kind) for found in numbers_in(part)]


every_class = pytest.mark.parametrize("cls", own_classes(), ids=lambda c: f"{c.__module__[8:]}.{c.__name__}")


@every_class
def test_fault_04_every_number_has_bounds_or_a_reason_to_have_none(cls: type[Settings]):
    for name, hints in annotations(cls).items():
        bounded = any(found and all(found) for found in map(numbers_in, hints))
        there = any(numbers_in(hint) for hint in hints)
        assert bounded or not there or (cls, name) in UNBOUNDED, f"{cls.__name__}.{name} needs bounds beside it"


@every_class
def test_fault_04_a_class_with_settings_of_its_own_has_a_line_of_refused_ones(cls: type[Settings]):
    base = annotations(Term) if issubclass(cls, Term) else {}
    numbers = {n for n, hints in annotations(cls).items() if n not in base and any(map(numbers_in, hints))}
    assert not numbers or REFUSED.get(cls), f"{cls.__name__}: add a line to REFUSED"


@pytest.mark.parametrize("cls", REFUSED, ids=lambda c: c.__name__)
def test_fault_04_what_no_setting_can_be_is_refused_by_name(cls: type[Settings]):
    made(cls)  # else nothing is tested
    for name, values in REFUSED[cls].items():
        for value in values:
            with pytest.raises(ValueError, match=r"\w") as caught:
                made(cls, **{name: value})
            assert "\n" not in str(caught.value) and not isinstance(caught.value, UnicodeError)


@every_class
def test_fault_04_no_number_is_nan_infinite_text_a_bool_or_beyond_its_bounds(cls: type[Settings]):
    for name, hints in annotations(cls).items():
        plain = [bounds_of(hint) for hint in hints if bounds_of(hint)[0] in (int, float)]
        for value in [math.nan, math.inf, -math.inf, True, "1", 2**64, *map(beyond, plain)] if plain else ():
            with pytest.raises(ValueError, match=f"{cls.__name__}.{name} is .* it must be"):
                made(cls, **{name: value})


def beyond(hint: tuple[Any, list[Any]]) -> Any:
    """The nearest value that a number's bounds leave out; None where it has none."""
    kind, bounds = hint
    down = (lambda x: x - 1) if kind is int else (lambda x: math.nextafter(x, -math.inf))
    up = (lambda x: x + 1) if kind is int else (lambda x: math.nextafter(x, math.inf))
    for bound in bounds:
        match bound:
            case Ge(low):
                return down(low)
            case Gt(low):
                return low
            case Le(high):
                return up(high)
            case Lt(high):
                return high
    return None


def test_warm_up_and_decay_may_take_all_of_training_together():
    assert Training(warmup=0.1, decay=0.9).decay == 0.9
    with pytest.raises(ValueError, match="more than all of it together"):
        Training(warmup=0.5, decay=0.51)


def test_a_member_that_cannot_be_is_named():
    study = Study(source=World(), d_sae=16, members={"topk-l0_32": MEMBER})
    with pytest.raises(ValueError, match="member 'topk-l0_32': k = 32 latents cannot be active out of d_sae = 16"):
        study.experiments()
