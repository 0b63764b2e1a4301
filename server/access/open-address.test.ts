import { Code } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { loadSettings } from "../config/load.ts";
import type { Settings } from "../config/settings.ts";
import { refuseOpenAddress } from "./open-address.ts";

function settings(listen: string, changes: Partial<Settings> = {}): Settings {
  return { ...loadSettings({ listen }, {}), ...changes };
}

test.each(["127.0.0.1:7400", "localhost:0", "[::1]:7400", "127.8.9.1:1"])(
  "%s is reached by nobody else",
  (listen) => {
    expect(() => refuseOpenAddress(settings(listen))).not.toThrow();
  },
);

test.each(["0.0.0.0:7400", "[::]:7400", "192.168.1.5:7400", "tools.example.com:443"])(
  "%s is refused unless something keeps others out, or it is said that nothing has to",
  (listen) => {
    const open = settings(listen);
    expect(() => refuseOpenAddress(open)).toThrow(
      expect.objectContaining({
        init: expect.objectContaining({
          code: Code.FailedPrecondition,
          reason: "UNAUTHENTICATED_REMOTE_ACCESS",
          preconditions: [expect.objectContaining({ subject: "auth.required" })],
        }),
      }),
    );
    const tls = { certFile: "cert.pem", keyFile: "key.pem", clientCaFile: undefined };
    expect(() => refuseOpenAddress({ ...open, tls })).toThrow();
    for (const changes of [
      { auth: { ...open.auth, required: true } },
      { tls: { ...tls, clientCaFile: "ca.pem" } },
      { allowUnauthenticatedRemoteAccess: true },
    ]) {
      expect(() => refuseOpenAddress({ ...open, ...changes })).not.toThrow();
    }
  },
);
