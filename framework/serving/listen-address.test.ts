import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { Code } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { DomainError } from "../errors/domain-error.ts";
import { serveSample } from "../test-support/sample-server.ts";
import { checkListenAddress } from "./listen-address.ts";

async function refusal(promise: Promise<unknown>) {
  const error = await promise.then(
    () => expect.unreachable("the address was accepted"),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(DomainError);
  return error instanceof DomainError ? error.init : undefined;
}

test("an address that is taken is named together with what to do, before and when it is listened on", async () => {
  const { address } = await serveSample();
  const listen = `127.0.0.1:${address.port}`;
  for (const attempt of [() => checkListenAddress(listen), () => serveSample({ listen })]) {
    expect(await refusal(attempt())).toMatchObject({
      code: Code.FailedPrecondition,
      reason: "ADDRESS_IN_USE",
      message: `another server already listens on ${listen}; stop it, or choose another address`,
    });
  }
});

test.each([
  ["of another machine", "192.0.2.1:0", "is no address of this machine"],
  ["of another machine, with IPv6", "[2001:db8::1]:0", "is no address of this machine"],
  ["with an unknown name", "no-such-host.invalid:0", "is not known here"],
])("an address %s is refused in words", async (_, listen, words) => {
  const init = await refusal(checkListenAddress(listen));
  expect(init).toMatchObject({ code: Code.FailedPrecondition, reason: "ADDRESS_NOT_AVAILABLE" });
  expect(init?.message).toContain(listen);
  expect(init?.message).toContain(words);
});

test("looking at an address leaves it free", async () => {
  const { address, close } = await serveSample();
  await close();
  const listen = `127.0.0.1:${address.port}`;
  await checkListenAddress(listen);
  expect((await serveSample({ listen })).address.port).toBe(address.port);
});

const firstFreePort = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
const canBeRefused = process.platform === "linux" && Number(readFileSync(firstFreePort, "utf8")) > 80;

test.runIf(canBeRefused)("a low port that an ordinary user may not take is refused in words", async () => {
  const script = `
    const { checkListenAddress } = await import(${JSON.stringify(join(import.meta.dirname, "listen-address.ts"))});
    await checkListenAddress("127.0.0.1:79").catch((error) => console.log(JSON.stringify(error.init)));`;
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ["--conditions=toolplane-source", "--input-type=module", "--eval", script],
    process.geteuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {},
  );
  expect(JSON.parse(stdout)).toMatchObject({
    code: Code.FailedPrecondition,
    reason: "ADDRESS_NOT_PERMITTED",
    message: expect.stringContaining("choose a port from 1024 on"),
  });
});
