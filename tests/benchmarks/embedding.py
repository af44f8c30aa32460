"""The teacher's embedding speed compared with `SentenceTransformer.encode`: the same texts and vectors, in turns."""

from collections.abc import Sequence

import numpy as np
from sentence_transformers import SentenceTransformer

from stages.corpus.locations import resolve
from stages.modeling.encoder import EncoderSettings, load_encoder
from stages.modeling.flops import count_flops, untrained_backbone
from tests.benchmarks.measure import Figure, in_turns, middle, seconds, spread
from tests.benchmarks.texts import TEACHER

PEER = "SentenceTransformer.encode"
# As in the default recipe.
MAX_TOKENS, BATCH_TOKENS = 96, 2048
PEER_BATCH_SIZES = (16, 32, 64)


def embedding_speed(texts: Sequence[str], rounds: int, teacher: str = TEACHER) -> tuple[dict[str, Figure], np.ndarray]:
    """Measure both embedders; returns figures and our vectors.

    Raises:
        ValueError: the vectors of both differ.
    """
    ours = load_encoder(teacher, EncoderSettings("mean", {"document": ""}, MAX_TOKENS))
    peer = SentenceTransformer(resolve(teacher), device="cpu")
    peer.max_seq_length = MAX_TOKENS
    batch_size = best_batch_size(peer, texts[: len(texts) // 3])
    vectors: dict[str, np.ndarray] = {}

    def run_ours() -> float:
        return seconds(lambda: vectors.update(ours=ours.encode(texts, "document", BATCH_TOKENS)))

    def run_peer() -> float:
        return seconds(lambda: vectors.update(peer=peer.encode(list(texts), batch_size=batch_size)))

    run_ours()  # warm
    found = in_turns({"ours": run_ours, "peer": run_peer}, rounds)
    cosine = float((vectors["ours"] * vectors["peer"]).sum(axis=1).min())
    if cosine < 0.99999:
        raise ValueError(f"the lowest cosine between ours and {PEER} is {cosine}, expected at least 0.99999")
    lengths = ours.tokenize(texts, "document").lengths
    flops = count_flops(untrained_backbone(ours.backbone.config), "mean", backward=False).of(lengths)
    return {
        "embed_tokens_per_second": Figure(sum(lengths) / middle(found["ours"]), "tokens/s"),
        "embed_ratio": Figure(
            middle(found["peer"]) / middle(found["ours"]),
            f"batch {batch_size}",
            PEER,
            middle(found["peer"]) / middle(found["ours"]),
            ">= 1.4",
        ),
        "embed_mfu": Figure(flops / middle(found["ours"]) / middle(found["peak"]), "", target=">= 0.65"),
        "embed_peer_mfu": Figure(flops / middle(found["peer"]) / middle(found["peak"]), ""),
        "embed_cosine_min": Figure(cosine, "", target=">= 0.99999"),
        "embed_spread": Figure(spread(found["ours"]), "of the median"),
    }, vectors["ours"]


def best_batch_size(peer: SentenceTransformer, texts: Sequence[str]) -> int:
    """Find the batch size at which the peer is fastest."""
    peer.encode(list(texts[:64]))  # warm
    return min(PEER_BATCH_SIZES, key=lambda size: seconds(lambda: peer.encode(list(texts), batch_size=size)))
