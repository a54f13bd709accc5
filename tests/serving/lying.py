"""A small OpenAI-compatible server that runs a tiny model with PEFT, and lies as it is told to.

It imports nothing of koinize's serving: transformers and PEFT compute what it answers.
"""

from __future__ import annotations

import copy
import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from koinize.examples.tiny.make_base import tiny_model, tiny_tokenizer

RANK, ALPHA = 4, 8
CHATML = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<turn>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant: {% endif %}"
)


def write_base(folder, *, chat=False, **settings):
    """A llama of random weights with a token for every byte; its answers depend on all it reads."""
    tiny_model(5, family="llama", **settings).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    if chat:
        (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def write_adapter(folder, base, seed, *, rslora=True, size=0.5, **config):
    """An adapter of random factors that PEFT itself writes."""
    model = AutoModelForCausalLM.from_pretrained(str(base))
    usual = {"r": RANK, "lora_alpha": ALPHA, "target_modules": "all-linear"}
    settings = LoraConfig(use_rslora=rslora, **(usual | config))
    peft_model = get_peft_model(model, settings)
    random = torch.Generator().manual_seed(seed)
    for name, parameter in peft_model.named_parameters():
        if "lora_" in name:
            scale = size / math.sqrt(RANK)
            parameter.data = torch.randn(parameter.shape, generator=random) * scale
    peft_model.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    return folder


class Lies:
    """What the server does instead of what it should; as it stands here it is honest."""

    scale = 1.0  # of the adapter's own
    dtype = torch.float32
    top = 20  # tokens that it names, and that it may be asked for
    named = "ids"  # "ids" as vLLM, "text" as SGLang, "content" as llama.cpp
    shy = 0  # seeds by which it draws half a character and names no token, as llama.cpp
    count = True  # says how many tokens a prompt has
    takes_ids = True
    lists = True  # its models

    def __init__(self, **changed):
        self.changed = changed
        self.__dict__.update(changed)

    def ids(self, ids: list[int]) -> list[int]:
        """The tokens that the model reads."""
        return ids

    def text(self, text: str) -> str:
        """The text that is tokenized, of a prompt that came as text."""
        return text

    def tokens(self, ids: list[int]) -> list[int]:
        """The tokens of such a text."""
        return ids

    def answered(self, logprobs: torch.Tensor) -> torch.Tensor:
        """The log-probabilities that are sent."""
        return logprobs


class Honest:
    """A model with an adapter, and the base under another name."""

    def __init__(self, base, adapter, lies=None, names=("mine", "plain")):
        self.lies = lies or Lies()
        self.tokenizer = AutoTokenizer.from_pretrained(str(base))
        self.bare = AutoModelForCausalLM.from_pretrained(str(base), dtype=self.lies.dtype)
        self.adapted = self.with_adapter(adapter)
        self.models = dict(zip(names, (self.adapted, self.bare), strict=True))
        self.asked = []  # bodies of requests

    def with_adapter(self, adapter):
        """The model with the adapter in a folder."""
        whole = PeftModel.from_pretrained(copy.deepcopy(self.bare), str(adapter))
        for layer in whole.modules():
            if isinstance(scaling := getattr(layer, "scaling", None), dict):
                scaling["default"] *= self.lies.scale
        return whole.merge_and_unload().to(self.lies.dtype)

    @torch.inference_mode()
    def logprobs(self, name, ids):
        logits = self.models[name](torch.tensor([ids])).logits[0, -1]
        return self.lies.answered(logits.float().log_softmax(-1))

    def answer(self, path, body):
        """(status, JSON) of a request."""
        self.asked.append(body)
        if body["model"] not in self.models:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        is_chat = "messages" in body
        most = body["top_logprobs"] if is_chat else body["logprobs"]
        if most > self.lies.top:
            return 400, {"error": {"message": f"logprobs may be at most {self.lies.top}"}}
        if is_chat:
            text = self.lies.text(
                self.tokenizer.apply_chat_template(
                    body["messages"], tokenize=False, add_generation_prompt=True
                )
            )
            ids = self.lies.tokens(self.tokenizer(text, add_special_tokens=False).input_ids)
        elif isinstance(body["prompt"], list):
            if not self.lies.takes_ids:
                return 400, {"error": {"message": "prompt must be a string"}}
            ids = body["prompt"]
        else:
            ids = self.lies.tokens(self.tokenizer(self.lies.text(body["prompt"])).input_ids)
        ids = self.lies.ids(ids)
        values, tokens = self.logprobs(body["model"], ids).topk(most)
        told = self.told(ids, values.tolist(), tokens.tolist(), is_chat)
        if body["seed"] < self.lies.shy:
            told["choices"][0]["logprobs"] = None
        return 200, told

    def told(self, ids, values, tokens, is_chat):
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1}
        texts = [self.tokenizer.decode([one]) for one in tokens]
        if self.lies.named == "ids":
            texts = [f"token_id:{one}" for one in tokens]
        entries = [
            {"token": text, "logprob": value, "bytes": list(text.encode())}
            for text, value in zip(texts, values, strict=True)
        ]
        if self.lies.named == "content":
            entries = [{**one, "id": id_} for one, id_ in zip(entries, tokens, strict=True)]
        if is_chat or self.lies.named == "content":
            logprobs = {"content": [{**entries[0], "top_logprobs": entries}]}
        else:
            logprobs = {
                "tokens": texts[:1],
                "token_logprobs": values[:1],
                "top_logprobs": [dict(zip(texts, values, strict=True))],
            }
        choice = {"index": 0, "text": "", "logprobs": logprobs, "finish_reason": "length"}
        return {"choices": [choice]} | ({"usage": usage} if self.lies.count else {})

    def listed(self):
        data = [{"id": name, "object": "model", "owned_by": "tests"} for name in self.models]
        return (200, {"object": "list", "data": data}) if self.lies.lists else (404, {})


class Loading(Honest):
    """The same, which loads and unloads adapters as vLLM 0.32 does, or SGLang 0.5.

    `words` are what it was told to do. `serves` says which folder's adapter it really takes for a
    name and a folder, None for the base; `refuses` what it says instead of loading; from the
    `dies`-th word on it answers nothing at all.
    """

    def __init__(self, base, adapter, *, owner="vllm", dies=None, offers=True, **given):
        super().__init__(base, adapter, names=("mood", "plain"), **given)
        self.owner, self.dies, self.offers = owner, dies, offers
        self.folders, self.words = {"mood": str(adapter)}, []
        self.serves = lambda name, folder: folder
        self.refuses = lambda name, folder: None

    def answer(self, path, body):
        self.live()
        root = "" if self.owner == "sglang" else "/v1"
        known = {f"{root}/load_lora_adapter": self.load, f"{root}/unload_lora_adapter": self.unload}
        if path in known and self.offers:
            self.words.append((path.rpartition("/")[2].partition("_")[0], body["lora_name"]))
            return known[path](body)
        if "lora_name" in body:
            return 404, {"detail": "Not Found"}
        if self.owner == "sglang":  # a model that it does not know is the base
            _, _, name = body["model"].rpartition("plain:")
            body = {**body, "model": name if name in self.models else "plain"}
        return super().answer(path, body)

    def live(self):
        if self.dies is not None and len(self.words) >= self.dies:
            raise ConnectionAbortedError

    def load(self, body):
        name, folder = body["lora_name"], body["lora_path"]
        if said := self.refuses(name, folder):
            return self.complaint(said)
        if name in self.folders and not body.get("load_inplace"):
            return self.complaint(f"'{name}' has already been loaded.")
        real = self.serves(name, folder)
        self.models[name] = self.with_adapter(real) if real else self.bare
        self.folders[name] = folder
        if self.owner == "sglang":
            return 200, {"success": True, "error_message": None, "loaded_adapters": self.folders}
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, body):
        name = body["lora_name"]
        if name not in self.folders:
            return self.complaint(f"The lora adapter '{name}' cannot be found.")
        del self.folders[name], self.models[name]
        if self.owner == "sglang":
            return 200, {"success": True, "error_message": None, "loaded_adapters": self.folders}
        return 200, f"Success: LoRA adapter '{name}' removed successfully."

    def complaint(self, said):
        if self.owner == "sglang":
            return 400, {"success": False, "error_message": said, "loaded_adapters": None}
        return 400, {"error": {"message": said, "type": "InvalidUserInput", "code": 400}}

    def listed(self):
        self.live()
        card = {"object": "model", "owned_by": self.owner}
        cards = [{**card, "id": "plain", "root": "plain", "parent": None}]
        cards += [
            {**card, "id": name, "root": folder, "parent": "plain"}
            for name, folder in self.folders.items()
        ]
        return 200, {"object": "list", "data": cards}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self._try(self.server.honest.listed)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._try(self.server.honest.answer, self.path, body)

    def _try(self, ask, *given):
        """A server that has died closes the connection without a word."""
        try:
            found = ask(*given)
        except ConnectionAbortedError:
            self.close_connection = True
        else:
            self._send(*found)

    def _send(self, status, value):
        content = (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Nothing."""


@contextmanager
def serving(honest=None, handler=_Handler) -> Iterator[str]:
    """The address of a server that answers as long as the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.honest = honest
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
