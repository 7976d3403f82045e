"""The commands of `unbraid`: what each does, its flags, and the function that does it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    summary: str
    arguments: str
    """Class in `arguments`."""
    run: str
    """module:function, in this package; imported when it is called."""
    words: tuple[str, ...] = ()
    """Words that come before all flags. A command with a NAME also takes the fields of the experiment as flags."""
    stopped: str = "stopped"
    """Printed when it was interrupted and has not said better itself."""

    @property
    def of_experiment(self) -> bool:
        return "NAME" in self.words


AGAIN = "stopped; run it again, it goes on where it stopped"
NOTHING = "stopped; nothing was written"
RESUME = "stopped; continue with --resume"

COMMANDS = {
    "demo": Command(
        "train, score, report and browse small studies on a world and on the embedded language model", "DemoFlags",
        "demo:run_demo", stopped=AGAIN,
    ),
    "list": Command("show experiments, studies, terms and evals, one line each", "ListFlags", "show:run_list"),
    "plan": Command(
        "say what a training will take (tokens, disk, memory, time) and show a sample of the text", "PlanFlags",
        "train:run_plan", ("NAME",),
    ),
    "train": Command(
        "train one named experiment, or every member of a study", "TrainFlags", "train:run_train", ("NAME",), RESUME
    ),
    "sweep": Command(
        "train a study, or an experiment crossed with values", "SweepFlags", "train:run_sweep", ("NAME",), RESUME
    ),
    "eval": Command(
        "score finished runs", "EvalFlags", "score:run_eval",
        stopped="stopped; results that were finished are kept, run it again for the others",
    ),
    "report": Command("write one HTML file from scored runs", "ReportFlags", "score:run_report", stopped=NOTHING),
    "browse": Command(
        "write pages on which to look at every latent, of one run or of two side by side", "BrowseFlags",
        "score:run_browse", stopped=NOTHING,
    ),
    "study": Command(
        "train a study, score it by every eval and by SAEBench, and write its report; run it again to resume",
        "StudyFlags", "study:run_study", ("NAME",), AGAIN,
    ),
    "study register": Command(
        "register a claim card: store its hash, what calibration chose, and the power that its study will have",
        "RegisterFlags", "claims:run_register", stopped=NOTHING,
    ),
    "power": Command(
        "say from calibration runs how many seeds a difference needs, score by score", "PowerFlags",
        "claims:run_power", stopped=NOTHING,
    ),
    "check published": Command(
        "compare scored runs with the published figures of SAEs of the same model, layer, width and architecture",
        "PublishedFlags", "published:run_check_published", stopped=NOTHING,
    ),
    "steer": Command(
        "show what a model writes with the atoms of latents added to its activations, chosen by number or by words",
        "SteerFlags", "steering:run_steer", stopped=NOTHING,
    ),
    "export": Command(
        "copy a run's dictionary into a folder for another library", "ExportFlags", "exchange:run_export",
        stopped=NOTHING,
    ),
    "copy": Command(
        "copy finished runs into an object store, or out of one", "CopyFlags", "exchange:run_copy",
        stopped="stopped; runs that were copied whole are there, run it again for the others",
    ),
    "import": Command(
        "make a run of an SAE from a folder of SAELens, dictionary_learning, sparsify or Gemma Scope", "ImportFlags",
        "exchange:run_import", ("SAE", "NAME"), "stopped; run it again",
    ),
    "cache": Command(
        "write an experiment's activations to disk, to train on later", "CacheFlags", "cache:run_cache", ("NAME",),
        "stopped; shards that were finished are kept, run it again for the others",
    ),
}  # fmt: skip
"""In the order in which help lists them."""

WORDS = {
    "NAME": "A named experiment or study (`unbraid list` shows them); its fields become flags.",
    "SAE": "The folder with the SAE.",
}
"""Help of the words that come before flags."""

EPILOG = """\
first steps
  unbraid demo            train, score and report two small studies whose factors are known; minutes, no network
  unbraid list            see what can be named
  unbraid train world     train one sparse autoencoder on a synthetic world
  unbraid train world --help       see the flags used most; every field of an experiment is one

on a language model
  unbraid plan  lm --source.model EleutherAI/pythia-70m-deduped --source.layer 3 --source.text corpus.jsonl
  unbraid sweep lm --source.model ... --out runs/pythia            train every member on one stream of activations
  unbraid eval runs/pythia/* && unbraid report runs/pythia/*       score the runs, and write report.html
"""
DESCRIPTION = "Should we optimise sparse autoencoders for disentanglement instead of sparsity?"
