"""The base model: which one it is, the model in memory, and text as its tokens.

- `base`: what it is called, its identity, and a folder of it that loads fast; imports no torch;
- `loaded`: the model in memory, adapters that come and go on it, logits only where they are needed;
- `encoding`: prompts and targets as token ids, one way for training, scoring and generating.
"""
