// Child processes that are never left behind: each runs in its own process group, and the group ends
// with this process.
import { spawn } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import { constants } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

const groups = new Set();

function signalGroup(pid, signal) {
  try {
    process.kill(-pid, signal);
    return true;
  } catch (error) {
    if (error.code === "ESRCH") return false;
    throw error;
  }
}

process.on("exit", () => {
  for (const pid of groups) signalGroup(pid, "SIGKILL");
});

// Node's default on these signals skips "exit". A program with its own handler cleans up and exits
// itself.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    if (process.listenerCount(signal) === 1) process.exit(128 + constants.signals[signal]);
  });
}

/**
 * Starts a command in its own process group. Its output goes to `log()` and, if given, to
 * `onOutput(text)`. `stop()` ends the whole group: SIGTERM, and SIGKILL after five seconds, or at
 * once with `{ hard: true }`.
 */
export function startGroup(command, args, { onOutput, ...options } = {}) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options, detached: true });
  let output = "";
  let exited = false;
  const ended = new Promise((resolve) => {
    child.on("error", (error) => {
      output += `${error.message}\n`;
      exited = true;
      resolve();
    });
    child.on("exit", () => {
      exited = true;
      resolve();
    });
  });
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (text) => {
      output += text;
      onOutput?.(text);
    });
  }
  if (child.pid) groups.add(child.pid);

  return {
    pid: child.pid,
    ended,
    exited: () => exited,
    exitCode: () => child.exitCode,
    log: () => output,
    async stop({ hard = false } = {}) {
      if (!child.pid) return;
      signalGroup(child.pid, hard ? "SIGKILL" : "SIGTERM");
      // The group can outlive its leader, and a killed process can take a moment to end.
      for (let waited = 0; signalGroup(child.pid, 0); waited += 50) {
        if (waited === 5000) signalGroup(child.pid, "SIGKILL");
        if (waited > 10_000) throw new Error(`process group ${child.pid} does not end`);
        await sleep(50);
      }
      await ended;
      groups.delete(child.pid);
    },
  };
}

/** Runs a command to its end and returns its standard output. An error has its whole output. */
export async function run(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
  let stdout = "";
  let all = "";
  child.stdout?.setEncoding("utf8").on("data", (text) => {
    stdout += text;
    all += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text) => {
    all += text;
  });
  const [code, signal] = await once(child, "close");
  if (code !== 0) {
    throw new Error(`${command} ${args.join(" ")}: ${signal ?? `exit code ${code}`}\n${all.trimEnd()}`);
  }
  return stdout;
}

/** Whether a loopback port is free. */
export function isPortFree(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

/** A free loopback port: the first free one from `from` on, or any. */
export async function freePort(from) {
  if (from !== undefined) {
    for (let port = from; port < from + 100; port += 1) {
      if (await isPortFree(port)) return port;
    }
    throw new Error(`no free port from ${from} to ${from + 99} on 127.0.0.1`);
  }
  const server = net.createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/**
 * The processes of a group, from the system's list: `{ pid, args }`, where `args` starts with the
 * program's path.
 */
export async function processesInGroup(group) {
  return (await processes()).filter((process) => process.group === group);
}

/** The processes that a process has started, as above. */
export async function childrenOf(parent) {
  return (await processes()).filter((process) => process.parent === parent);
}

async function processes() {
  const list = await run("ps", ["-A", "-ww", "-o", "pid=,ppid=,pgid=,args="]);
  return list
    .split("\n")
    .map((line) => line.trim().match(/^(\d+)\s+(\d+)\s+(\d+)\s+(.*)$/))
    .filter((found) => found !== null)
    .map(([, pid, parent, group, args]) => ({ pid: Number(pid), parent: Number(parent), group: Number(group), args }));
}
