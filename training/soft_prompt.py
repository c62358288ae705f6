"""Prompt tuning (Lester et al. 2021): a few vectors before every prompt are all that is trained.

They are the embeddings of tokens that the vocabulary gets for it, and the chat template begins with
these tokens. So what comes out is an ordinary model that any server plays; the weights of the base
model are its own to the last bit, which is why nothing else can be forgotten.
"""

from typing import Any

import torch

from medaction.training.settings import TrainSettings
from medaction.training.templates import template_of


def add_soft_prompt(tokenizer: Any, count: int) -> Any:
    """The tokenizer with `count` more tokens, with which its chat template begins (after the mark
    of a text's beginning, where there is one)."""
    names = [f"<|soft-prompt-{number}|>" for number in range(count)]
    tokenizer.add_tokens(names, special_tokens=True)
    begin = tokenizer.bos_token or ""
    tokenizer.chat_template = (
        f"{{% set conversation %}}{template_of(tokenizer)}{{% endset %}}"
        f"{{% set begin = {begin!r} %}}"
        "{% if begin and conversation.startswith(begin) %}{{ begin }}"
        "{% set conversation = conversation[begin|length:] %}{% endif %}"
        f"{{{{ {''.join(names)!r} + conversation }}}}"
    )
    return tokenizer


def soft_prompt_ids(tokenizer: Any, count: int) -> list[int]:
    return [tokenizer.convert_tokens_to_ids(f"<|soft-prompt-{number}|>") for number in range(count)]


def widen(model: Any, tokenizer: Any, settings: TrainSettings) -> list[int]:
    """Give the model a row for each token of the soft prompt, a copy of some other token's: the
    same rows for the same seed, in every process. Returns the tokens' ids.

    Copies of vocabulary learn faster than random vectors (Lester et al. 2021, section 3.2). Many
    models have rows to spare, and are not widened then.
    """
    ids = soft_prompt_ids(tokenizer, settings.prompt_tokens)
    first_id = min(ids)
    if model.get_input_embeddings().num_embeddings <= max(ids):
        # Its mean of all rows would be overwritten below.
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    sampled = torch.randint(
        first_id, (len(ids),), generator=torch.Generator().manual_seed(settings.seed)
    )
    with torch.no_grad():
        # A set: with tied weights both are one.
        for embeddings in {model.get_input_embeddings(), model.get_output_embeddings()}:
            embeddings.weight[ids] = embeddings.weight[sampled].clone()
    return ids


def trained_prompt(model: Any, tokenizer: Any, settings: TrainSettings) -> Any:
    """The model with the soft prompt's embeddings as its only trained weights."""
    from peft import TrainableTokensConfig, get_peft_model

    ids = widen(model, tokenizer, settings)
    return get_peft_model(model, TrainableTokensConfig(task_type="CAUSAL_LM", token_indices=ids))
