"""`manage.py channel_layer` and `python -m channels_redis_fast check`."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync
from channels.layers import InMemoryChannelLayer, channel_layers
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import override_settings

import support.consuming  # noqa: F401  configures Django
from channels_redis_fast.__main__ import main
from channels_redis_fast.management.commands.channel_layer import Command
from channels_redis_fast.management.using import listen
from support.clusters import Cluster
from support.layers import end
from support.polling import until
from support.pretending import pretend
from support.servers import Server, free_port
from support.sites import Site
from support.syncing import KINDS

EITHER = pytest.mark.parametrize("kind", KINDS)
MESSAGE = '{"type": "chat", "text": "žluťoučký"}'
PATHS = {
    "core": "channels_redis_fast.core.RedisChannelLayer",
    "pubsub": "channels_redis_fast.pubsub.RedisPubSubChannelLayer",
    "memory": f"channels.layers.{InMemoryChannelLayer.__name__}",
}


def layers(kind: str, *hosts: Any, **options: Any) -> dict[str, Any]:
    """CHANNEL_LAYERS with one layer."""
    config = {"hosts": list(hosts), **options} if hosts else options
    return {"default": {"BACKEND": PATHS[kind], "CONFIG": config}}


def run(setting: dict[str, Any], *words: str) -> str:
    """What the command writes."""
    output = io.StringIO()
    with override_settings(CHANNEL_LAYERS=setting):
        call_command(Command(), *words, stdout=output, stderr=io.StringIO())
    return output.getvalue()


def refusal(setting: dict[str, Any], *words: str) -> str:
    """What it refuses to do, and why."""
    with pytest.raises(CommandError) as caught:
        run(setting, *words)
    return str(caught.value)


# check


@EITHER
def test_check(kind: str, valkey: Server) -> None:
    text = run(layers(kind, valkey.url), "check")
    assert text.startswith("default\n")
    assert valkey.url in text
    assert text.endswith("0 errors, 0 warnings\n")


def test_settings_after_the_subcommand(valkey: Server) -> None:
    setting = layers("core", valkey.url)
    assert run(setting, "groups", "--settings", "site.settings") == ""


def test_check_fails_for_errors(valkey: Server, capsys: Any) -> None:
    setting = layers("core", f"redis://127.0.0.1:{free_port()}", valkey.url)
    assert "1 error, see above" in refusal(setting, "check")
    url = f"redis://127.0.0.1:{free_port()}"
    assert main(["check", url]) == 1
    assert "ERROR" in capsys.readouterr().out
    assert main(["check", "--pubsub", "--prefix", "other", valkey.url]) == 0
    assert "keys other*" in capsys.readouterr().out


def test_check_in_json(valkey: Server, capsys: Any) -> None:
    setting = layers("core", valkey.url)
    setting["other"] = {"BACKEND": PATHS["memory"]}
    found = json.loads(run(setting, "check", "--json"))
    assert found["errors"] == 0
    assert found["layers"].keys() == {"default", "other"}
    first = found["layers"]["default"][0]
    assert first.keys() == {"level", "topic", "where", "text", "remedy"}
    assert (first["level"], first["topic"]) == ("ok", "reach")
    found = json.loads(run(setting, "check", "--json", "--alias", "other"))
    assert found["layers"].keys() == {"other"}
    assert main(["check", "--json", valkey.url]) == 0
    assert json.loads(capsys.readouterr().out)["errors"] == 0


def test_check_of_what_cannot_be_made(valkey: Server) -> None:
    wrong = layers("core", valkey.url, capacty=5)
    with override_settings(CHANNEL_LAYERS=wrong):
        output = io.StringIO()
        with pytest.raises(CommandError, match="1 error"):
            call_command(Command(), "check", stdout=output)
    assert "unknown option 'capacty'" in output.getvalue()
    assert "no layer" in refusal({}, "check")


def test_an_alias_that_is_unknown(valkey: Server) -> None:
    for words in (["groups"], ["send", "a", "{}"], ["flush"], ["listen", "a"]):
        text = refusal(layers("core", valkey.url), *words, "--alias", "othr")
        assert "'othr'" in text
        assert "default" in text
    assert "othr" in refusal(layers("core", valkey.url), "check", "--alias", "othr")


# The others


@EITHER
def test_top(kind: str, valkey: Server) -> None:
    setting, one = layers(kind, valkey.url), pretend(valkey.client(), 3)
    text = run(setting, "top", "--once")
    assert text.startswith("1 process\n")
    assert "elsewhere" in text
    (found,) = json.loads(run(setting, "top", "--once", "--json"))
    assert found["id"] == one


def test_groups(valkey: Server) -> None:
    setting = layers("core", valkey.url, prefix="a*")
    with override_settings(CHANNEL_LAYERS=setting):
        layer = channel_layers["default"]
    for group, count in (("room-1", 1), ("room-2", 2), ("other", 3)):
        for number in range(count):
            layer.sync.group_add(group, f"specific.0!{number}")
    layer.sync.close()
    valkey.client().zadd("ab:group:foreign", {"x": 1})
    assert run(setting, "groups").split() == [
        "3",
        "other",
        "1",
        "room-1",
        "2",
        "room-2",
    ]
    assert run(setting, "groups", "room-*").split() == ["1", "room-1", "2", "room-2"]
    assert run(setting, "groups", "none") == ""


async def test_groups_of_pubsub(valkey: Server) -> None:
    await listed(layers("pubsub", valkey.url))


@pytest.mark.slow
async def test_groups_on_a_cluster(cluster: Cluster) -> None:
    await listed(layers("pubsub", cluster.host))
    await listed(layers("pubsub", cluster.host, sharded_pubsub=False))


async def listed(setting: dict[str, Any]) -> None:
    """The groups of two processes' layers, of which each has its own subscription."""
    config = setting["default"]["CONFIG"]
    both = [KINDS["pubsub"](**config) for _ in range(2)]
    names = [await layer.new_channel() for layer in both]
    for layer, name in zip(both, names, strict=True):
        await layer.group_add("room-1", name)
    await both[0].group_add("room-2", names[0])
    text = await asyncio.to_thread(run, setting, "groups", "room*")
    assert text.split() == ["2", "room-1", "1", "room-2"]
    for layer in both:
        await layer.close_pools()


@pytest.mark.parametrize("word", ["groups", "top"])
def test_what_another_package_can_t_tell(word: str) -> None:
    text = refusal(layers("memory"), word)
    assert "InMemoryChannelLayer is another package's layer" in text


@EITHER
def test_send(kind: str, valkey: Server) -> None:
    setting = layers(kind, valkey.url)
    run(setting, "send", "worker", MESSAGE)
    with override_settings(CHANNEL_LAYERS=setting):
        layer = channel_layers["default"]
    assert layer.sync.receive("worker", timeout=5) == json.loads(MESSAGE)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["send", "worker", "no JSON"], "no JSON"),
        (["send", "worker", "[1]"], "must be a JSON object"),
        (["send", "no name", "{}"], "'no name'"),
        (["group_send", "no name", "{}"], "'no name'"),
        (["listen", "no name"], "'no name'"),
        (["listen", "room", "--count", "0"], "1 or more: '0'"),
        (["serve", "--port", "65536"], "port number: '65536'"),
    ],
)
def test_bad_input(words: list[str], reason: str, valkey: Server) -> None:
    assert reason in refusal(layers("core", valkey.url), *words)


def test_a_full_channel(valkey: Server) -> None:
    setting = layers("core", valkey.url, capacity=1)
    run(setting, "send", "worker", "{}")
    assert "at capacity" in refusal(setting, "send", "worker", "{}")


@pytest.mark.parametrize(
    "words", [["send", "a", "{}"], ["groups"], ["flush", "--yes"], ["top"]]
)
def test_redis_is_away(words: list[str]) -> None:
    setting = layers("core", f"redis://127.0.0.1:{free_port()}")
    assert "refused" in refusal(setting, *words)


def test_flush(valkey: Server) -> None:
    setting = layers("core", valkey.url)
    run(setting, "send", "worker", "{}")
    text = refusal(setting, "flush")
    assert "--yes" in text
    assert valkey.url in text
    assert valkey.client().dbsize() == 1
    run(setting, "flush", "--yes")
    assert valkey.client().dbsize() == 0


def test_another_package_s_layer() -> None:
    with override_settings(CHANNEL_LAYERS=layers("memory")):
        call_command(Command(), "send", "worker", MESSAGE)
        layer = channel_layers["default"]
        assert async_to_sync(layer.receive)("worker") == json.loads(MESSAGE)


@EITHER
async def test_listen(kind: str, valkey: Server) -> None:
    lines: list[str] = []
    joined = asyncio.Event()
    layer = KINDS[kind](hosts=[valkey.url])
    work = listen(layer, "room", lines.append, lambda line: joined.set(), count=1)
    listening = asyncio.ensure_future(work)
    await joined.wait()
    setting = layers(kind, valkey.url)
    await asyncio.to_thread(run, setting, "group_send", "room", MESSAGE)
    await listening
    assert [json.loads(line) for line in lines] == [json.loads(MESSAGE)]
    assert valkey.client().keys("*group*") == []


async def test_listen_that_is_cancelled(valkey: Server) -> None:
    layer, joined = KINDS["core"](hosts=[valkey.url]), asyncio.Event()
    work = listen(layer, "room", print, lambda line: joined.set())
    listening = asyncio.ensure_future(work)
    await joined.wait()
    await end(listening)
    assert valkey.client().keys("*group*") == []


@EITHER
@pytest.mark.slow
def test_listen_and_group_send(kind: str, valkey: Server, tmp_path: Path) -> None:
    """In a site of its own, as users have it."""
    site = Site(tmp_path)
    site.set(layers(kind, valkey.url))
    words = site.command("channel_layer", "listen", "room", "--count", "2")
    with subprocess.Popen(
        words,
        env=site.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as listening:
        assert listening.stderr is not None
        assert listening.stdout is not None
        assert "Listening to room" in listening.stderr.readline()
        setting = layers(kind, valkey.url)
        for _ in range(2):
            run(setting, "group_send", "room", MESSAGE)
            assert json.loads(listening.stdout.readline()) == json.loads(MESSAGE)
        assert listening.wait(10) == 0
    assert valkey.client().keys("*group*") == []


@pytest.mark.slow
def test_a_site(valkey: Server, tmp_path: Path) -> None:
    """Both halves: by the app, and with an exit status."""
    site = Site(tmp_path)
    site.set(layers("core", "http://x"))
    done = site.manage("check", "--tag", "channels")
    assert done.returncode == 1
    assert "channels_redis_fast.E001" in done.stderr
    site.set(layers("core"))
    done = site.manage("check", "--deploy", "--tag", "channels", "--fail-level=WARNING")
    assert done.returncode == 1
    assert "channels_redis_fast.W101" in done.stderr
    site.set(layers("core", valkey.url))
    done = site.manage("check", "--deploy", "--tag", "channels", "--fail-level=WARNING")
    assert (done.returncode, done.stderr) == (0, "")
    done = site.manage("channel_layer", "check")
    assert done.returncode == 0, done.stderr
    site.set(layers("core", f"redis://127.0.0.1:{free_port()}"))
    done = site.manage("channel_layer", "check")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_serve(tmp_path: Path) -> None:
    site, port = Site(tmp_path), free_port()
    site.set({})
    words = site.command("channel_layer", "serve", "--port", str(port))
    with subprocess.Popen(
        words, env=site.environment, stdout=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stdout is not None
        assert str(port) in serving.stdout.readline()
        with redis.Redis(port=port) as client:
            assert until(client.ping, "it")
        serving.terminate()
        serving.wait(30)
