"""Tokenizers as encoders need them: with a padding token, and a token at the end of a text for last-token pooling."""

from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from stages.corpus.locations import local_folder
from stages.modeling.model_files import check_tokenizer, named_failures


def load_tokenizer(location: str) -> PreTrainedTokenizerFast:
    """Load a tokenizer; without a padding token it pads with its end-of-sequence token.

    Raises:
        ValueError: the tokenizer has neither token, or the folder no vocabulary that can be loaded.
    """
    folder = local_folder(location)
    check_tokenizer(location, folder)
    with named_failures(location, "transformers' tokenizer", "load it where it works, and save it as tokenizer.json"):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, use_fast=True)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(f"{location}: the tokenizer has neither a padding nor an end-of-sequence token; add one")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def end_of_sequence(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the id of the token that ends a text: the one that the tokenizer adds, its separator, or its end token.

    The added token comes first: Qwen3-Embedding ends a text with its padding token, not with its end of sequence.

    Raises:
        ValueError: the tokenizer has none.
    """
    _, ends = _added_tokens(tokenizer)
    if ends:
        return ends[-1]
    end: int | None = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    if end is None:
        raise ValueError("last-token pooling needs a tokenizer with an end-of-sequence or separator token; it has none")
    return end


def ensure_end_of_sequence(tokenizer: PreTrainedTokenizerFast) -> None:
    """Let the tokenizer end every text with a token of its own, which last-token pooling reads.

    The change is in the tokenizer's post-processor, so it is saved with the tokenizer and holds in every runtime.

    Raises:
        ValueError: the tokenizer has no such token.
    """
    start_ids, ends = _added_tokens(tokenizer)
    if ends:
        return
    end_id = end_of_sequence(tokenizer)
    end, starts = tokenizer.convert_ids_to_tokens(end_id), tokenizer.convert_ids_to_tokens(start_ids)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=[*starts, "$A", end],
        pair=[*starts, "$A", end, "$B", end],
        special_tokens=[(end, end_id), *zip(starts, start_ids, strict=True)],
    )


def _added_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Return the ids of the tokens that the tokenizer adds before and after a text."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    ids, added = encoded["input_ids"], encoded["special_tokens_mask"]
    first, last = added.index(0), len(added) - added[::-1].index(0)
    return ids[:first], ids[last:]
