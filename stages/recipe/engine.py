"""Section `engine`: how the training phases run on the machine."""

from typing import Literal

from stages.recipe.fields import Count, Section


class Engine(Section):
    threads: Count
    processes: Count
    precision: Literal["float32", "bfloat16"]
    micro_batch_tokens: Count
    packing: bool
    gradient_checkpointing: bool
    compile: bool
    shard: bool
