"""What a plan says about questions that a language model is still to write."""

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.corpus.readers.synthetic import kept_answer, question_writer
from stages.planning.command import OutOfReach, plan
from stages.recipe.paths import RECIPE
from tests.checkouts import TINY
from tests.corpus.builders import fields

OPTIONS: dict[str, Any] = {
    "url": "http://127.0.0.1:9/v1",
    "model": "writer",
    "question": "Ask about it: {text}",
    "max_answer_tokens": 100,
    "min_words": 3,
}


@pytest.fixture
def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The values of a recipe with a source `made` of questions about ten sections, four of which are answered."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "manual").mkdir()
    for number in range(10):
        text = f"# Part {number}\n\nThe valve of part {number} is closed by hand."
        (tmp_path / f"manual/{number}.md").write_text(text)
    recipe: dict[str, Any] = YAML(typ="safe").load(TINY)
    recipe["curate"]["sources"].append(
        fields(name="made", reader="synthetic.queries", files=["manual/*.md"], options=OPTIONS)
    )
    for number in range(4):
        text = f"Part {number}\nThe valve of part {number} is closed by hand."
        file = kept_answer(question_writer(OPTIONS).request(text))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    return recipe


def given(recipe: dict[str, Any], *left_out: str) -> OutOfReach:
    names = [source["name"] for source in recipe["curate"]["sources"] if source["name"] not in left_out]
    return OutOfReach(rows=tuple(f"{name}=400" for name in names), tokens_per_text=20)


def test_requests_that_are_not_answered_yet_are_shown_before_any_is_sent(
    asking: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    YAML().dump(asking, RECIPE)
    with pytest.raises(ValueError, match="source made is not curated"):
        plan(device="l4", given=given(asking, "made"))
    header, made = capsys.readouterr().out.splitlines()[:2]
    assert header.split() == ["questions", "requests", "answered", "prompt", "tokens", "answer", "tokens"]
    name, requests, answered, prompt_tokens, *most = made.split()
    assert (name, requests, answered, most) == ("made", "6", "4", ["at", "most", "600"])
    assert 6 * 14 <= int(prompt_tokens) <= 6 * 24, "16 words each, and the tokens of the prompt"


def test_a_cost_is_shown_where_both_prices_are_declared(
    asking: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    asking["curate"]["sources"][-1] |= {"options": OPTIONS | {"prompt_price": 2.0, "answer_price": 10000.0}}
    asking["curate"]["sources"][-1] |= {"max_rows": 10}
    YAML().dump(asking, RECIPE)
    plan(device="l4", given=given(asking, "made"), as_json=True)
    asked = json.loads(capsys.readouterr().out)["questions"]["made"]
    assert asked["cost"] == pytest.approx((asked["prompt_tokens"] * 2 + 600 * 10000) / 1e6)


def test_a_source_of_given_size_is_out_of_reach(asking: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    YAML().dump(asking, RECIPE)
    plan(device="l4", given=given(asking), as_json=True)
    assert json.loads(capsys.readouterr().out)["questions"] == {}
