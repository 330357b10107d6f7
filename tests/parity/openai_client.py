"""Asks a running ff2-serve by the official `openai` client: pip install openai anthropic; openai_client.py URL KEY MODEL.

Nothing here is about what the model says, only about what the client makes of it. The `anthropic` client is at the
wrong server: it must be able to say so.
"""

import json
import sys

import anthropic
import openai
from openai import OpenAI

url, key, model = sys.argv[1:4]
client = OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60)
hello = [{"role": "user", "content": "Say hello."}]
tool = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
}
schema = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
done = []


def check(name, holds):
    assert holds, name
    done.append(name)


def refused(name, kind, code, **fields):
    try:
        client.chat.completions.create(**{"model": model, "messages": hello, "max_tokens": 4, **fields})
    except kind as error:
        check(name, error.code == code)
    else:
        raise AssertionError(f"{name}: not refused")


check("models", model in [entry.id for entry in client.models.list()])
whole = client.chat.completions.create(model=model, messages=hello, max_tokens=16, temperature=0, n=2, logprobs=True)
check("chat", len(whole.choices) == 2 and whole.choices[0].message.role == "assistant")
check("usage", whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens)
check("cached", whole.usage.prompt_tokens_details.cached_tokens >= 0)
check("logprobs", all(entry.logprob <= 0 for entry in whole.choices[0].logprobs.content))

stream = client.chat.completions.create(
    model=model, messages=hello, max_tokens=16, temperature=0, stream=True, stream_options={"include_usage": True}
)
text, usage = "", None
for chunk in stream:
    usage = chunk.usage or usage
    text += "".join(choice.delta.content or "" for choice in chunk.choices)
check("stream", text == whole.choices[0].message.content and usage.completion_tokens > 0)

with client.chat.completions.create(model=model, messages=hello, max_tokens=900, stream=True) as stream:
    next(iter(stream))
check("closed stream", True)

answer = client.completions.create(model=model, prompt="Once", max_tokens=8, temperature=0, echo=True)
check("completion", answer.choices[0].text.startswith("Once"))

shape = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
answer = client.chat.completions.create(model=model, messages=hello, max_tokens=60, response_format=shape)
check("json_schema", isinstance(json.loads(answer.choices[0].message.content)["ok"], bool))

answer = client.chat.completions.create(
    model=model, messages=hello, max_tokens=200, tools=[tool], tool_choice="required"
)
call = answer.choices[0].message.tool_calls[0]
check("tool call", call.function.name == "add" and isinstance(json.loads(call.function.arguments)["a"], int))
messages = [
    *hello,
    answer.choices[0].message,
    {"role": "tool", "tool_call_id": call.id, "content": "3"},
]
answer = client.chat.completions.create(model=model, messages=messages, max_tokens=4)
check("tool result", answer.usage.prompt_tokens > 0)

answer = client.chat.completions.create(
    model=model, messages=hello, max_tokens=4, extra_body={"top_k": 5, "min_p": 0.1, "guided_choice": ["a", "b"]}
)
check("extra fields", answer.choices[0].message.content in ("a", "b"))

least = {"min_tokens": 6, "allowed_token_ids": [65, 66], "bad_words": ["AA"], "prompt_logprobs": 1}
answer = client.chat.completions.create(model=model, messages=hello, max_tokens=6, extra_body=least)
check("fields of vLLM", answer.usage.completion_tokens == 6)
check("prompt_logprobs", len(answer.model_extra["prompt_logprobs"]) == answer.usage.prompt_tokens)
answer = client.completions.create(model=model, prompt="Once", max_tokens=2, echo=True, logprobs=2)
told = answer.choices[0].logprobs
check("echo with logprobs", told.token_logprobs[0] is None and len(told.tokens) == answer.usage.total_tokens)

image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}]}]
refused("image", openai.BadRequestError, "unsupported_content", messages=image)
refused("unknown model", openai.NotFoundError, "model_not_found", model="gpt-4")
refused("wrong type", openai.BadRequestError, "invalid_type", temperature="hot")
long = [{"role": "user", "content": "x " * 10**6}]
refused("too long", openai.BadRequestError, "context_length_exceeded", messages=long)
client = OpenAI(base_url=url, api_key="wrong", max_retries=0)
refused("wrong key", openai.AuthenticationError, "invalid_api_key")



def misused(name, kind, word, ask):
    try:
        ask()
    except kind as error:
        check(f"misuse: {name}", error.body["type"] == "error" and word in error.body["error"]["message"])
    else:
        raise AssertionError(f"{name}: not refused")


root = url.removesuffix("/v1")
client = anthropic.Anthropic(base_url=root, auth_token=key, max_retries=0)
misused(
    "messages",
    anthropic.NotFoundError,
    "OpenAI",
    lambda: client.messages.create(model=model, messages=hello, max_tokens=4),
)
client = anthropic.Anthropic(base_url=root, auth_token="wrong", max_retries=0)
misused("key", anthropic.AuthenticationError, "API key", client.models.list)
print(f"{len(done)} checks hold: {', '.join(done)}")
