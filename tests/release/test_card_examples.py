"""The examples of the model card run in the release folder with only the packages that the card names."""

import re
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers.util import quantize_embeddings

from stages.release.environment import consumer_site, run_isolated
from stages.release.formats import FORMATS, Format
from stages.release.parity_samples import load_samples
from stages.release.parity_texts import Case

pytestmark = pytest.mark.slow  # all read the release, which takes the stage half a minute to write

FIRST_IMPORT = {"onnx": "onnxruntime", "openvino-int8": "openvino"}
QUERY = Case("query", "how do plants make sugar?")


def blocks(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)


def example(card: str, module: str) -> str:
    found = [block for block in blocks(card) if re.search(rf"^(import|from) {module}\b", block, flags=re.MULTILINE)]
    assert len(found) == 1, f"{len(found)} examples import {module}"
    return found[0]


@pytest.mark.parametrize("name", ["onnx", "openvino-int8"])
def test_a_graphs_example_gives_the_models_vectors(built: Path, tmp_path: Path, name: str) -> None:
    code = example((built / "README.md").read_text(), FIRST_IMPORT[name])
    run(FORMATS[name], f"{code}\nnp.save({str(tmp_path / 'answer.npy')!r}, vectors)\n", built, tmp_path)
    samples = load_samples(built)
    row = samples.embedded.index(samples.cases.index(QUERY))
    vectors = np.load(tmp_path / "answer.npy", allow_pickle=False)
    assert float(vectors[0] @ samples.references["retrieval"].embeddings[row]) > (0.99999 if name == "onnx" else 0.99)


def test_sentence_transformers_examples_of_both_cards_run(built: Path, tmp_path: Path) -> None:
    code = example((built / "README.md").read_text(), "sentence_transformers")
    (of_merged,) = blocks((built / "merged/clustering/README.md").read_text())
    check = "assert queries.shape == documents.shape == (1, 32)\n"
    code += f"{check}import os\nos.chdir('merged/clustering')\n{of_merged}{check}"
    run(FORMATS["merged"], code, built, tmp_path)


def test_the_adapters_example_runs(built: Path, tmp_path: Path) -> None:
    code = example((built / "README.md").read_text(), "peft")
    code += "assert states.shape[2] == 32 and model.active_adapter == 'clustering'\n"
    run(FORMATS["adapters"], code, built, tmp_path)


def run(form: Format, code: str, release: Path, folder: Path) -> None:
    script = folder / "example.py"
    script.write_text(code, encoding="utf-8")
    run_isolated(consumer_site(form.packages, folder / "site"), script, [], release)


def test_smaller_vectors_are_those_of_sentence_transformers(built: Path, tmp_path: Path) -> None:
    code = next(block for block in blocks((built / "README.md").read_text()) if "packbits" in block)
    answer = tmp_path / "answer.npz"
    code += f"np.savez({str(answer)!r}, cut=cut, limit=limit, int8=int8, uint8=uint8, binary=binary, ubinary=ubinary)\n"
    run(FORMATS["onnx"], code, built, tmp_path)
    with np.load(answer, allow_pickle=False) as found:
        ranges = np.outer([-1, 1], np.full(32, found["limit"]))
        for precision in ("int8", "uint8", "binary", "ubinary"):
            expected = quantize_embeddings(found["cut"], precision=precision, ranges=ranges).astype(int)
            rounding = 1 if "int8" in precision else 0
            np.testing.assert_allclose(found[precision].astype(int), expected, atol=rounding)


def test_gguf_is_refused_in_words(built: Path) -> None:
    card = (built / "README.md").read_text()
    assert "There is no GGUF file" in card
    assert "--pooling last" in card
