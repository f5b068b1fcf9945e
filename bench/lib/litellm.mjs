// LiteLLM's proxy with one key before one upstream. Its budgets need a database, so it has none.
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ROOT } from "../../scripts/lib/gate.mjs";
import { freePort, run, startGroup } from "../../scripts/lib/processes.mjs";

const PYTHON = path.join(ROOT, ".tools/litellm/bin/python");
const START_MS = 90_000;
/** Without these it fetches a list of prices and sends statistics. */
const QUIET = { LITELLM_LOCAL_MODEL_COST_MAP: "True", LITELLM_TELEMETRY: "False", LITELLM_LOG: "ERROR", NO_PROXY: "127.0.0.1" };

/** The version that scripts/setup.sh installs. */
export async function litellmVersion() {
  const versions = await readFile(path.join(ROOT, "scripts/versions.env"), "utf8");
  return versions.match(/^LITELLM=(.*)$/m)[1];
}

/** The version of its Python. */
export const pythonVersion = async () => (await run(PYTHON, ["--version"])).trim().replace("Python ", "");

/** Whether that version is installed. */
export async function hasLitellm() {
  const script = "from importlib.metadata import version; print(version('litellm'))";
  try {
    return (await run(PYTHON, ["-c", script])).trim() === (await litellmVersion());
  } catch {
    return false;
  }
}

/** Starts it in one process, before `upstream` (`host:port`) with these models. */
export async function startLitellm({ upstream, models }) {
  const directory = await mkdtemp(path.join(tmpdir(), "tollgate-litellm-"));
  const clear = () => rm(directory, { recursive: true, force: true });
  // It does not start without one.
  const masterKey = `sk-${randomBytes(32).toString("hex")}`;
  const config = {
    model_list: models.map((name) => ({
      model_name: name,
      litellm_params: { model: `openai/${name}`, api_base: `http://${upstream}/v1`, api_key: "none" },
    })),
    litellm_settings: { telemetry: false, num_retries: 0 },
    general_settings: { master_key: masterKey },
  };
  const file = path.join(directory, "config.yaml");
  // JSON is YAML.
  await writeFile(file, JSON.stringify(config));
  const port = await freePort();
  const args = ["-c", "from litellm import run_server; run_server()", "--config", file, "--host", "127.0.0.1", "--port", String(port), "--num_workers", "1"];
  const group = startGroup(PYTHON, args, { cwd: directory, env: { ...process.env, ...QUIET } });
  const stop = () => group.stop({ hard: true }).finally(clear);
  const deadline = Date.now() + START_MS;
  while (!(await isAlive(port))) {
    if (group.exited() || Date.now() > deadline) {
      await stop();
      throw new Error(`LiteLLM did not start; its log:\n${group.log().slice(-2000)}`);
    }
    await sleep(200);
  }
  return { address: `127.0.0.1:${port}`, pid: group.pid, key: masterKey, log: group.log, stop };
}

async function isAlive(port) {
  try {
    return (await fetch(`http://127.0.0.1:${port}/health/liveliness`, { signal: AbortSignal.timeout(2000) })).ok;
  } catch {
    return false;
  }
}
