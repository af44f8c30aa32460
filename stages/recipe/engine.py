"""Section `engine`: how the stages that run a model use the machine."""

from typing import Literal

from pydantic import Field

from stages.recipe.fields import Count, Section


class Engine(Section):
    """Threads, processes and precision. Another number of threads or processes changes the rounding of results."""

    threads: Count = Field(description="CPU threads of each process.")
    processes: Count = Field(
        description="Processes of each training stage, summed over all machines; each has a GPU of its own where there "
        "are GPUs. They share the negatives of a batch."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        description="Number format of the forward pass of teacher and student; the trained weights stay in float32. "
        "`bfloat16` is meant for GPUs."
    )
    micro_batch_tokens: Count = Field(
        description="Tokens that a process embeds at once while it trains. A larger batch goes through in several "
        "parts, with the same gradients, so this value bounds memory and not the batch."
    )
    packing: bool = Field(description="Whether texts are put end to end without padding, which saves computation.")
    gradient_checkpointing: bool = Field(
        description="Whether the backward pass computes activations again instead of keeping them: less memory for "
        "more time."
    )
    compile: bool = Field(description="Whether each layer of the student is compiled by `torch.compile`.")
    shard: bool = Field(
        description="Whether the student's weights are spread over the processes (FSDP), for a student that does not "
        "fit one GPU."
    )
