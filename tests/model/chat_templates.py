# ruff: noqa: E501, S106 - a template is one line as long as it is, and </s> is no password
"""Chat templates in the shapes that are in use, each as small as its shape, and tokenizers for them.

A shape is what stands where: what a server sends last, what the template writes before and after an
answer, what becomes of a system message. The names say which models have templates of the shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from functools import cache

from jinja2 import Environment, Template
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

MARKS = (
    *("<|im_start|>", "<|im_end|>", "<|eot|>", "<|head|>", "<|end_head|>", "<|start|>", "<|end|>"),
    *("<|return|>", "<|channel|>", "<|message|>", "<start_of_turn>", "<end_of_turn>", "<|user|>"),
    *("<|assistant|>", "<|system|>", "[INST]", "[/INST]", "<|endoftext|>", "<u>", "<a>"),
)
NOT_SPECIAL = ("<think>", "</think>")


@dataclass(frozen=True)
class Shape:
    """One template. `end` is the text after an answer up to where it ends, None where the template
    says nothing of it; `lead` what it writes before one, `unsaid` what only a server sends.
    """

    template: str
    end: str | None
    lead: str = ""
    unsaid: str = ""
    has_system: bool = True
    arguments: dict[str, object] = field(default_factory=dict)

    def render(self, messages: list[dict[str, str]], *, ask: bool) -> str:
        """By Jinja itself, with the settings and names that all who render chat templates use."""
        return _compiled(self.template).render(
            messages=messages,
            add_generation_prompt=ask,
            bos_token="<s>",
            eos_token="</s>",
            **self.arguments,
        )


@cache
def _compiled(template: str) -> Template:
    extensions = ["jinja2.ext.loopcontrols"]
    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)  # noqa: S701
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = date(2025, 1, 1).strftime
    return environment.from_string(template)


def _raise(message: str) -> str:
    raise ValueError(message)


EACH = "{% for m in messages %}"
DONE = "{% endfor %}"
THINKS = (
    EACH + "{% if m.role == 'assistant' and loop.last %}<|im_start|>assistant\n"
    "{% set parts = m.content.split('</think>') %}<think>\n"
    "{{ parts[0].split('<think>')[-1].strip('\n') if parts | length > 1 else '' }}\n</think>\n\n"
    "{{ parts[-1].lstrip('\n') }}<|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}" + DONE
)
CHATML = EACH + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}" + DONE
USER = EACH + "{% if m.role == 'user' %}"

SHAPES: dict[str, Shape] = {
    "Llama 2": Shape(
        "{% if messages[0].role == 'system' %}{% set note = '<<S>>\n' + messages[0].content + '\n<</S>>\n\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set note = '' %}{% endif %}"
        + EACH + "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + (note if loop.first else '') + m.content.strip() + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}" + DONE,
        end=" </s>", lead=" ",
    ),
    "Llama 3": Shape(
        "{{ bos_token }}" + EACH + "{{ '<|head|>' + m.role + '<|end_head|>\n\n' + m.content | trim + '<|eot|>' }}" + DONE
        + "{% if add_generation_prompt %}{{ '<|head|>assistant<|end_head|>\n\n' }}{% endif %}",
        end="<|eot|>",
    ),
    "Llama 3.1, with a date": Shape(
        "{{ bos_token }}<|head|>system<|end_head|>\n\n{{ 'Today: ' + strftime_now('%d %b %Y') }}<|eot|>"
        + EACH + "{{ '<|head|>' + m.role + '<|end_head|>\n\n' + m.content | trim + '<|eot|>' }}" + DONE
        + "{% if add_generation_prompt %}{{ '<|head|>assistant<|end_head|>\n\n' }}{% endif %}",
        end="<|eot|>",
    ),
    "Mistral": Shape(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ bos_token }}"
        + USER + "{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}" + DONE,
        end="</s>", lead=" ", has_system=False,
    ),
    "Mistral, which has a system message while a question is open": Shape(
        "{% if messages[0].role == 'system' %}{% set note = messages[0].content + '\n\n' %}{% set messages = messages[1:] %}"
        "{% else %}{% set note = '' %}{% endif %}{{ bos_token }}"
        + USER + "[INST]{{ (note if loop.last else '') + m.content }}[/INST]{% else %}{{ ' ' + m.content + eos_token }}{% endif %}" + DONE,
        end="</s>", lead=" ",
    ),
    "Gemma": Shape(
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{{ bos_token }}"
        + EACH + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim + '<end_of_turn>\n' }}" + DONE
        + "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        end="<end_of_turn>", has_system=False,
    ),
    "Gemma 3": Shape(
        "{% if messages[0].role == 'system' %}{% set note = messages[0].content + '\n\n' %}{% set messages = messages[1:] %}"
        "{% else %}{% set note = '' %}{% endif %}{{ bos_token }}"
        + EACH + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + (note if loop.first else '') + m.content | trim + '<end_of_turn>\n' }}" + DONE
        + "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        end="<end_of_turn>",
    ),
    "ChatML": Shape(CHATML + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}", end="<|im_end|>"),
    "Qwen 2, with a system message of its own": Shape(
        "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
        + CHATML + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        end="<|im_end|>",
    ),
    "Qwen 3": Shape(
        THINKS + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}",
        end="<|im_end|>", lead="<think>\n\n</think>\n\n",
    ),
    "Qwen 3 without thinking": Shape(
        THINKS + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}",
        end="<|im_end|>", arguments={"enable_thinking": False},
    ),
    "Qwen 3, thinking always": Shape(
        THINKS + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}",
        end="<|im_end|>", lead="\n</think>\n\n",
    ),
    "DeepSeek R1": Shape(
        "{{ bos_token }}" + EACH + "{% if m.role == 'assistant' %}<|assistant|>{{ m.content.split('</think>')[-1] }}<|endoftext|>"
        "{% elif m.role == 'user' %}<|user|>{{ m.content }}{% else %}{{ m.content }}{% endif %}" + DONE
        + "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}",
        end="<|endoftext|>", unsaid="<think>\n",
    ),
    "gpt-oss": Shape(
        "<|start|>system<|message|>{{ 'Date: ' + strftime_now('%Y-%m-%d') }}<|end|>"
        + EACH + "{% if m.role == 'assistant' %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}"
        "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}" + DONE
        + "{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        end="<|return|>", lead="<|channel|>final<|message|>",
    ),
    "Phi 3": Shape(
        EACH + "{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}" + DONE
        + "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        end="<|end|>",
    ),
    "Zephyr": Shape(
        EACH + "{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}" + DONE
        + "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
        end="</s>", lead="\n",
    ),
    "Vicuna": Shape(
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ messages[0].content + ' ' }}{% set messages = messages[1:] %}{% endif %}"
        + USER + "{{ 'USER: ' + m.content + ' ' }}{% else %}{{ 'ASSISTANT: ' + m.content + eos_token }}{% endif %}" + DONE
        + "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
        end="</s>", lead=" ",
    ),
    "Command R": Shape(
        "{{ bos_token }}" + EACH + "<|start|>{{ '<|' + m.role + '|>' + m.content }}<|end|>" + DONE
        + "{% if add_generation_prompt %}<|start|><|assistant|>{% endif %}",
        end="<|end|>",
    ),
    "OLMo": Shape(
        "<|endoftext|>" + EACH + "{{ '<|' + m.role + '|>\n' + m.content + ('<|endoftext|>' if m.role == 'assistant' and loop.last else '\n') }}" + DONE
        + "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        end="<|endoftext|>",
    ),
    "Granite": Shape(
        EACH + "{{ '<|start|>' + m.role + '<|end_head|>' + m.content + '<|endoftext|>\n' }}" + DONE
        + "{% if add_generation_prompt %}{{ '<|start|>assistant<|end_head|>' }}{% endif %}",
        end="<|endoftext|>",
    ),
    "SmolLM 3, where the system message turns thinking off": Shape(
        EACH + "{% if m.role == 'assistant' and loop.last and '/no_think' in messages[0].content %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n' + m.content + '<|im_end|>\n' }}"
        "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}" + DONE
        + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% if '/no_think' in messages[0].content %}{{ '<think>\n\n</think>\n' }}{% endif %}{% endif %}",
        end="<|im_end|>",
    ),
    "Baichuan, two marks and no end": Shape(
        EACH + "{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}<u>{{ m.content }}{% else %}<a>{{ m.content }}{% endif %}" + DONE
        + "{% if add_generation_prompt %}<a>{% endif %}",
        end=None,
    ),
    "a line break, then the end": Shape(
        USER + "{{ 'User: ' + m.content + '\n' }}{% else %}{{ 'Bot: ' + m.content + '\n' + eos_token }}{% endif %}" + DONE
        + "{% if add_generation_prompt %}{{ 'Bot: ' }}{% endif %}",
        end="\n</s>",
    ),
    "Alpaca, which has no end": Shape(
        USER + "{{ '### Instruction:\n' + m.content + '\n\n' }}{% elif m.role == 'system' %}{{ m.content + '\n\n' }}{% else %}{{ '### Response:\n' + m.content + '\n\n' }}{% endif %}" + DONE
        + "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}",
        end=None,
    ),
}  # fmt: skip

TEXTS = {
    "Latin": ("How is the pump, and the hose?", "It is quiet."),
    "digits": ("What is 12 and 30?", "42"),
    "German": ("Wie läuft die Pumpe?", "Größer und leiser."),
    "Japanese": ("ポンプはどうですか。", "静かなポンプ"),
    "Chinese": ("水泵怎么样？", "很安静。"),
    "Korean": ("펌프는 어떤가요?", "조용한 펌프, 새는 호스."),
    "Thai": ("ปั๊มเป็นอย่างไรบ้าง", "เงียบมาก"),
    "emoji": ("👍 or 👎?", "😀👍🏽"),
}
CORPUS = [text for pair in TEXTS.values() for text in pair] * 3 + [
    "user assistant system model\n\n", "The pump is quiet.\n", "quiet, quieter. 123 456\n", "</think>\n\n",
]  # fmt: skip


LINES = r"\s*[\r\n]+| ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"


@cache
def _trained(kind: str) -> Tokenizer:
    specials = ["<unk>", "<s>", "</s>", "<pad>"]
    match kind:
        case "words and spaces" | "lines":  # bytes, cut as for GPT-2 and as for Llama 3 and Qwen
            made = Tokenizer(models.BPE())
            lines = pre_tokenizers.Split(Regex(LINES), "isolated")
            made.pre_tokenizer = (
                pre_tokenizers.ByteLevel(add_prefix_space=False)
                if kind == "words and spaces"
                else pre_tokenizers.Sequence(
                    [lines, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
                )
            )
            made.decoder = decoders.ByteLevel()
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = trainers.BpeTrainer(
                vocab_size=500, special_tokens=specials, initial_alphabet=alphabet
            )
        case "pieces":
            made = Tokenizer(models.WordPiece(unk_token="<unk>"))
            made.normalizer = normalizers.BertNormalizer(lowercase=True)
            made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
            made.decoder = decoders.WordPiece()
            trainer = trainers.WordPieceTrainer(vocab_size=700, special_tokens=specials)
        case "unigram":
            made = Tokenizer(models.Unigram())
            made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
            made.decoder = decoders.Metaspace(prepend_scheme="first")
            alphabet = sorted({character for text in [*CORPUS, "\n<|>S/:#"] for character in text})
            trainer = trainers.UnigramTrainer(
                vocab_size=400,
                special_tokens=specials,
                unk_token="<unk>",
                initial_alphabet=alphabet,
            )
        case _:  # SentencePiece: a space before the first word of every text, of the first, of none
            made = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
            made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=True)
            made.decoder = decoders.Sequence(
                [decoders.Metaspace(prepend_scheme=kind), decoders.ByteFallback(), decoders.Fuse()]
            )
            bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
            trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[*specials, *bytes_])
    made.train_from_iterator([*CORPUS, *MARKS] if kind == "pieces" else CORPUS, trainer)
    return made


TOKENIZERS = ("words and spaces", "lines", "pieces", "unigram", "always", "first", "never")


def tokenizer(kind: str, template: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer of one kind, trained on the texts here."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(kind).to_str()),
        unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
    )  # fmt: skip
    made.add_tokens(
        [AddedToken(one, special=True, normalized=False) for one in MARKS], special_tokens=True
    )
    made.add_tokens([AddedToken(one, normalized=False) for one in NOT_SPECIAL])
    made.chat_template = template
    return made
