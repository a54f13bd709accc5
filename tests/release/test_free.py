"""A gate on what is written freely: the release in use is asked for it, too."""

from __future__ import annotations

import pytest

from koinize.errors import InputError
from koinize.pipeline import Plan
from koinize.release import promote
from koinize.release.candidate import answered_alike
from koinize.settings import EvaluationSpec
from tests.pipeline.conftest import Small
from tests.release.releasing import ONE_MERGE, Quiet, finish, retrain
from tests.release.test_promotion import rows_wrong, small  # noqa: F401 - fixtures

GATED = ONE_MERGE.replace(
    "metrics: [accuracy]", "metrics: [accuracy, parsed]\n    free: true\n    margins: {parsed: 2}"
)


@pytest.mark.slow
def test_a_release_of_before_writes_first(
    small: Small,  # noqa: F811
    rows_wrong: dict[str, int],  # noqa: F811
) -> None:
    """v1 was made before `free`; of its 400 German texts 60 are then no label."""
    promote(finish(small), "mood", "production")
    small.spec(GATED)
    retrain(small, "de", 6)
    project = finish(small)
    with pytest.raises(InputError) as refused:
        promote(project, "mood", "production")
    assert str(refused.value) == (
        "v1 was answered without `free: true`: the gate cannot compare 'parsed'; promote without "
        "--no-score, so that it answers again; if it has another base model, take the margin of "
        "'parsed' out"
    )
    rows_wrong["de"] = 60
    seen: list[Plan] = []
    done = promote(project, "mood", "production", Quiet(), seen.append)
    assert [one.step.name for one in seen[0].missing] == [
        "evaluate/mood/v1/de/test",
        "evaluate/mood/v1/en/test",
    ]
    found = {one.language: one.verdict for one in done.judgement.gated}
    assert {language: one.difference for language, one in found.items()} == {"de": 15.0, "en": 0.0}
    assert done.switched
    retrain(small, "de", 7)
    again = promote(finish(small, {"de": 40}), "mood", "production", Quiet())
    assert not again.switched
    (lost, *_) = again.judgement.lost
    assert (lost.metric, lost.candidate, lost.loss) == ("parsed", "so so", 100.0)
    assert lost.incumbent == lost.truth


def test_settings_that_a_former_koinize_did_not_know_are_no_others() -> None:
    now = EvaluationSpec().model_dump(mode="json")
    former = {name: value for name, value in now.items() if name != "free"}
    assert answered_alike(former, now)
    assert answered_alike(former, {**now, "batch_tokens": 512})  # which bounds memory alone
    assert not answered_alike(former, {**now, "free": True})
