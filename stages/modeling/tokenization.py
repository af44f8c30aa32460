"""Tokenizers as encoders need them: able to pad, and ending a text where its embedding is read."""

from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from stages.modeling.identity import local_folder


def load_tokenizer(location: str) -> PreTrainedTokenizerFast:
    """Load a tokenizer; one without a padding token pads with its end-of-sequence token.

    Raises:
        ValueError: the tokenizer has neither token.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(local_folder(location), trust_remote_code=False, use_fast=True)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(f"{location}: the tokenizer has neither a padding nor an end-of-sequence token; add one")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def end_of_sequence(tokenizer: PreTrainedTokenizerFast) -> int:
    """Id of the token that ends a text: the separator, else the end of sequence.

    Raises:
        ValueError: the tokenizer has neither.
    """
    end: int | None = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    if end is None:
        raise ValueError("last-token pooling needs a tokenizer with an end-of-sequence or separator token; it has none")
    return end


def ensure_end_of_sequence(tokenizer: PreTrainedTokenizerFast) -> None:
    """Have the tokenizer end every text with its end-of-sequence (or separator) token, which last-token pooling reads.

    The change is in the tokenizer's own post-processor, so it is saved with it and holds in every runtime.

    Raises:
        ValueError: the tokenizer has neither token.
    """
    end_id = end_of_sequence(tokenizer)
    end = tokenizer.convert_ids_to_tokens(end_id)
    ids = tokenizer("")["input_ids"]  # nothing but what the tokenizer puts around a text: a start token, if anything
    if not ids or ids[-1] != end_id:
        starts = tokenizer.convert_ids_to_tokens(ids)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=[*starts, "$A", end],
            pair=[*starts, "$A", end, "$B", end],
            special_tokens=[(end, end_id), *zip(starts, ids, strict=True)],
        )
