"""Settings of some modules: what an override changes, and what it leaves."""

import pytest

from koinize.errors import InputError
from koinize.merge.recipe import merge_settings

Q, V = "model.layers.0.q_proj", "model.layers.1.v_proj"


def test_weights_of_an_override_change_the_languages_that_they_name():
    local = {"q_proj": {"weights": {"de": 2, "fr": 3}}}
    settings = merge_settings(recipe="ties", weights={"de": 4, "en": 5}, overrides=local)
    assert settings.of_module(Q).weights == {"de": 2.0, "en": 5.0, "fr": 3.0}
    assert settings.of_module(V).weights == {"de": 4.0, "en": 5.0}
    back = {"q_proj": {"weights": {"en": 1}}}
    settings = merge_settings(recipe="ties", weights={"de": 4, "en": 5}, overrides=back)
    assert settings.of_module(Q).weights == {"de": 4.0, "en": 1.0}


def test_the_identity_is_that_of_the_weights_that_hold():
    def identity(weights, local):
        overrides = {"q_proj": {"weights": local}}
        return merge_settings(recipe="ties", weights=weights, overrides=overrides).identity()

    whole = identity({"en": 5.0}, {"en": 5.0, "de": 2.0})
    assert identity({"en": 5.0}, {"de": 2.0}) == whole
    assert whole["overrides"] == {"q_proj": {"weights": {"de": 2.0, "en": 5.0}}}
    assert "overrides" not in identity({"en": 5.0}, {"en": 5.0})


def test_patterns_that_disagree_about_weights():
    local = {"q_proj": {"weights": {"de": 2}}, "layers.0.*": {"weights": {"en": 2}}}
    settings = merge_settings(recipe="ties", overrides=local)
    with pytest.raises(InputError) as caught:
        settings.of_module(Q)
    assert str(caught.value) == (
        f"module '{Q}' gets two values of 'weights', from the overrides 'q_proj' and 'layers.0.*'; "
        "make the patterns disjoint"
    )
