"""The list of the runs of a report, setting by setting, with the anchors by which every number leads to its runs."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from unbraid.comparison.judgement import Judgement
from unbraid.comparison.names import method_name
from unbraid.comparison.scores import Method, Scores
from unbraid.comparison.stored_scores import StoredRun
from unbraid.report.figures import RunsOf


@dataclass(frozen=True)
class RunGroup:
    """The runs of one setting of one method, with the anchor of their list."""

    anchor: str
    title: str
    identifier: str
    control: bool
    runs: list[dict[str, Any]]
    method: str
    """The short name of the method."""
    d_sae: int
    method_anchor: str
    """The anchor of all runs of the method, whose settings follow one another; empty but for the first."""


@dataclass(frozen=True)
class Places:
    """The anchors of a testbed's runs."""

    groups: Sequence[RunGroup]

    def of(self, runs: RunsOf) -> str:
        """The anchor of these runs; empty where they are not listed. A control that a width lacks is judged by that of
        another."""
        known = [(group.method_anchor, group.method) if runs.whole else (group.anchor, group.identifier)
                 for group in self.at(runs.d_sae)]  # fmt: skip
        return next((anchor for anchor, name in known if anchor and name == runs.name), "")

    def at(self, d_sae: int) -> list[RunGroup]:
        """The groups, those of a width first, and of the others the controls alone."""
        return [g for g in self.groups if g.d_sae == d_sae] + [g for g in self.groups if g.d_sae != d_sae and g.control]

    def method(self, name: str, d_sae: int) -> str:
        """The anchor of all runs of a method, by its short name."""
        return self.of(RunsOf(name, d_sae, whole=True))

    def setting(self, name: str, d_sae: int) -> str:
        """The anchor of the runs of a setting."""
        return self.of(RunsOf(name, d_sae))

    def links(self, runs: Sequence[RunsOf]) -> list[tuple[str, str]]:
        """The links to these runs: the text and the anchor of each."""
        found = [(method_name(each.name) if len(runs) > 1 else "runs", self.of(each)) for each in dict.fromkeys(runs)]
        return [(said, anchor) for said, anchor in found if anchor]


def sides(judged: Judgement, d_sae: int) -> tuple[RunsOf, RunsOf]:
    """The runs of both sides of a judgement at a width."""
    names = judged.contrast.method, judged.contrast.other
    return RunsOf(names[0], d_sae, whole=True), RunsOf(names[1], d_sae, whole=True)


def places_of(scores: Scores, index: int, out: Path) -> Places:
    """List the runs of every setting of a testbed, with links to their folders."""
    groups, seen = [], dict[tuple[str, int], str]()
    for at, (method, label, name, runs) in enumerate(settings_of(scores)):
        key = method.short, method.d_sae
        first = "" if key in seen else seen.setdefault(key, f"s{index}m{len(seen)}")
        facts = [run_facts(run, out) for run in runs]
        groups.append(
            RunGroup(f"s{index}r{at}", label, name, method.role == "control", facts, method.short, method.d_sae, first)
        )
    return Places(groups)


def settings_of(scores: Scores) -> Iterator[tuple[Method, str, str, list[StoredRun]]]:
    """Every setting of every method, with its name for readers and its own."""
    for method in scores.methods:
        for name, runs in method.settings.items():
            at = f", L0 {runs[0].requested_l0:g}" if runs[0].requested_l0 == runs[0].requested_l0 else ""
            yield method, f"{method_name(method.name)}{at}", name, runs


def run_facts(run: StoredRun, out: Path) -> dict[str, Any]:
    """The facts on a run that the page lists."""
    href = link(run.folder, out) if run.folder.is_dir() else ""  # of committed rows the folders may be gone
    return {
        "run": run.run, "href": href, "seed": run.seed, "d_sae": run.d_sae,
        "architecture": run.architecture, "seconds": run.provenance.get("seconds"),
        "finished": run.provenance.get("finished", ""),
    }  # fmt: skip


def link(folder: Path, out: Path) -> str:
    """A link to a run folder, relative to the report, so that both can be moved together."""
    try:
        return quote(Path(os.path.relpath(folder, out.resolve().parent)).as_posix() + "/")
    except ValueError:  # another drive
        return folder.as_uri()
