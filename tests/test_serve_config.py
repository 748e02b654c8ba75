"""The configuration of `descry serve`: one YAML, flags over it, and nothing open to others by accident."""

import argparse
from pathlib import Path

import pytest

from descry.client.cli import main
from descry.client.serve_config import ServeConfig, ServerSection, TLSSection, is_loopback
from descry.client.serve_settings import add_flags, load_serve_config
from descry.client.triton_command import RESTRICTED, TritonCommand
from descry.client.triton_wheel import ServerError

MINIMAL = "server:\n  repository: models\n  gallery: g.sqlite\n"
TLS_FILES = "tls:\n  certificate: c.pem\n  key: k.pem\n  authority: a.pem\n"


def load(path: Path | None, *flags: str) -> ServeConfig:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return load_serve_config(path, parser.parse_args(flags))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "serve.yaml"


def test_a_file_is_read_and_flags_go_before_it(file):
    file.write_text(MINIMAL + "  grpc_port: 9001\n  log: a.log\naudit:\n  rotate_mib: 3\nkeys:\n")
    config = load(file, "--grpc-port", "9002", "--limits-image-mib", "5", "--no-audit-enabled", "--keys-file", "k.json")
    assert config.server == ServerSection(Path("models"), Path("g.sqlite"), grpc_port=9002, log=Path("a.log"))
    assert (config.limits.image_mib, config.limits.batch, config.audit.rotate_mib) == (5, 1024, 3)
    assert config.audit_file is None and config.keys.file == Path("k.json")
    assert load(None, "--repository", "a", "--gallery", "b/c.sqlite").audit_file == Path("b/c.audit.jsonl")


def test_what_is_printed_is_a_file_that_gives_the_same(file):
    config = load(None, "--repository", "ä: b", "--gallery", "g", "--host", "localhost", "--http-port", "0")
    file.write_text(config.to_yaml())
    assert load(file) == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "server:\n  repository: a\n  repo: b\n",
            r"serve.yaml:3: unknown key server.repo; valid: repository, gallery, ",
        ),
        (
            "server:\n  repository: a\nservers: b\n",
            r"serve.yaml:3: unknown section 'servers'; valid: server, tls, keys,",
        ),
        (MINIMAL + "  grpc_port: http\n", "serve.yaml:4: grpc_port must be a whole number, got 'http'"),
        (MINIMAL + "  insecure: 1\n", "serve.yaml:4: insecure must be true or false, got 1"),
        (MINIMAL + "  grpc_port: true\n", "serve.yaml:4: grpc_port must be a whole number, got True"),
        (MINIMAL + "  host: [a]\n", r"serve.yaml:4: host must be a text, got \['a'\]"),
        (MINIMAL + "  host: null\n", "serve.yaml:4: host must be a text, got None"),
        (MINIMAL + "  grpc_port: 70000\n", "server.grpc_port is a number from 0 to 65535, not 70000"),
        (MINIMAL + "limits:\n  batch: 0\n", "limits.batch is a whole number from 1 on"),
        ("server: 3\n", "serve.yaml:1: server must hold `key: value` lines"),
        ("- a\n", "serve.yaml: the file must hold `key: value` lines"),
        ("a: b: c\n", "serve.yaml is not YAML"),
        ("server:\n  repository: a\n", "server.gallery is missing: give it in the file of --config or as --gallery"),
        ("", "server.repository is missing"),
        (MINIMAL + "tls:\n  certificate: c.pem\n", "tls.certificate and tls.key belong together"),
        (MINIMAL + "tls:\n  certificate: c.pem\n  key: k.pem\n", "tls.authority is missing"),
        (MINIMAL + "tls:\n  mutual: true\n", "without them there is no TLS"),
        (MINIMAL + "  model_control: true\n", "server.model_control needs keys.control"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(file, content, message):
    file.write_text(content)
    with pytest.raises(ServerError, match=message):
        load(file)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org"])
def test_no_open_host_without_tls_and_keys(file, host):
    file.write_text(MINIMAL + f"  host: '{host}'\n" + TLS_FILES)
    with pytest.raises(ServerError, match="open to other machines without keys.file: .*--insecure"):
        load(file)
    with pytest.raises(ServerError, match="without tls.certificate and keys.file"):
        load(None, "--repository", "a", "--gallery", "b", "--host", host)
    with pytest.raises(ServerError, match="Triton has no TLS for HTTP"):
        load(file, "--keys-file", "k.json", "--http-port", "8000")
    assert load(file, "--keys-file", "k.json").server.host == host
    assert load(file, "--insecure").server.insecure


def test_what_is_loopback():
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "a.localhost.example", "")))


class Wheel:
    """Where the server would be."""

    binary = Path("tritonserver")

    def link_backends(self, folder: Path) -> Path:
        return folder

    def environment(self) -> dict[str, str]:
        return {"DESCRY_KEYS": "left over"}


def command(config: ServeConfig, folder: Path) -> TritonCommand:
    return TritonCommand(config, Wheel(), folder, "prefix")  # type: ignore[arg-type]


def test_the_command_closes_what_clients_must_not_reach(tmp_path):
    arguments = command(load(None, "--repository", "a", "--gallery", "b"), tmp_path).arguments()
    assert "--allow-http=false" in arguments and "--grpc-address=127.0.0.1" in arguments
    assert "--metrics-address=127.0.0.1" in arguments and not [each for each in arguments if "ssl" in each]
    assert not [each for each in arguments if "model-control" in each]
    for group in ("model-repository", "shared-memory", "model-config", "trace", "logging", "statistics"):
        assert group in RESTRICTED.split(",")
    (restricted,) = [each for each in arguments if each.startswith("--grpc-restricted-protocol=")]
    assert len(restricted.rpartition("=")[2]) > 40


def test_http_stays_on_this_machine_even_with_an_open_host(tmp_path):
    config = load(None, "--repository", "a", "--gallery", "b", "--host", "0.0.0.0", "--insecure", "--http-port", "8000")
    arguments = command(config, tmp_path).arguments()
    assert "--http-address=127.0.0.1" in arguments and "--grpc-address=0.0.0.0" in arguments
    assert [each for each in arguments if each.startswith("--http-restricted-api=model-repository,")]


def test_tls_and_model_control_reach_the_command(tmp_path):
    key = tmp_path / "control"
    key.write_text("secret-control\n")
    flags = ["--tls-certificate", "c", "--tls-key", "k", "--tls-authority", "a", "--tls-mutual", "--model-control"]
    config = load(None, "--repository", "a", "--gallery", "b", *flags, "--keys-control", str(key))
    made = command(config, tmp_path)
    arguments = made.arguments()
    assert {"--grpc-use-ssl-mutual=1", "--grpc-server-cert=c", "--grpc-server-key=k", "--grpc-root-cert=a"} <= set(
        arguments
    )
    assert "--model-control-mode=explicit" in arguments and "--load-model=*" in arguments
    assert made.control_headers == {"triton-grpc-protocol-descry-control": "secret-control"}
    assert "secret-control" not in config.to_yaml()
    for content in ("", "a,b", "a:b", "two words"):
        key.write_text(content)
        with pytest.raises(ServerError, match="holds no control key"):
            command(config, tmp_path)
    key.unlink()
    with pytest.raises(ServerError, match="cannot read the control key"):
        command(config, tmp_path)


def test_the_models_are_told_what_was_decided_and_nothing_left_over(tmp_path):
    config = load(
        None, "--repository", "a", "--gallery", "/g/x.sqlite", "--limits-image-mib", "2", "--audit-rotate-mib", "1"
    )
    environment = command(config, tmp_path).environment()
    assert environment["DESCRY_KEYS"] == "" and environment["DESCRY_AUDIT"] == "/g/x.audit.jsonl"
    assert environment["DESCRY_LARGEST_IMAGE_BYTES"] == str(2 * 2**20) and environment["DESCRY_LARGEST_BATCH"] == "1024"
    from server_settings import ServerSettings

    settings = ServerSettings.read(Path("/elsewhere/g.sqlite"), environment)
    assert settings.audit == Path("/g/x.audit.jsonl") and settings.keys is None
    assert (settings.audit_rotate_bytes, settings.largest_image_bytes) == (2**20, 2 * 2**20)
    assert ServerSettings.read(Path("/g/y.sqlite"), {}).audit == Path("/g/y.audit.jsonl")
    assert ServerSettings.read(Path("/g/y.sqlite"), {"DESCRY_AUDIT": "off"}).audit is None


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_wrong_variable_is_named(value):
    from server_settings import ServerSettings, SettingsError

    with pytest.raises(SettingsError, match="DESCRY_LARGEST_BATCH must be a whole number from 1 on"):
        ServerSettings.read(None, {"DESCRY_LARGEST_BATCH": value})


def test_serve_says_what_is_wrong_and_ends(file, capsys):
    file.write_text(MINIMAL + "  hots: 0.0.0.0\n")
    assert main(["serve", "--config", str(file)]) == 1
    assert "serve.yaml:4: unknown key server.hots" in capsys.readouterr().err
    assert main(["serve", "--config", str(file.with_name("absent.yaml"))]) == 1
    assert "descry serve: cannot read" in capsys.readouterr().err


def test_sections_are_complete_in_the_manual():
    manual = (Path(__file__).parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")
    assert TLSSection().certificate is None
    for line in load(None, "--repository", "a", "--gallery", "b").to_yaml().splitlines():
        name = line.strip().split(":")[0]
        assert f"`{name}`" in manual, f"docs/operations.md does not explain {name}"
