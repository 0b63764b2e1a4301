import { once } from "node:events";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type CryptoKey, exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from "jose";
import { onTestFinished } from "vitest";

/** An identity provider that signs tokens and publishes its keys on a port of its own. */
export interface Issuer {
  readonly jwksUrl: string;
  /** How often the keys were asked for. */
  readonly requests: number;
  /** Makes a key to sign with from now on, and publishes it; `keep` publishes those before it as well. */
  rotate(options?: { keep?: boolean; kid?: string | undefined; alg?: string }): Promise<void>;
  /** Publishes something as a key besides those that there are. */
  publish(key: JWK): void;
  /** A token, signed with the newest key. Times are in seconds. */
  sign(claims: JWTPayload & { readonly exp: number }): Promise<string>;
  /** What the port does with requests for the keys. */
  behave(how: "answer" | "fail" | "hang"): void;
  /** Closes the port. */
  die(): Promise<void>;
  /** Opens it again. */
  revive(): Promise<void>;
}

export async function startIssuer(alg = "ES256"): Promise<Issuer> {
  let published: JWK[] = [];
  let signing: { key: CryptoKey; kid: string | undefined; alg: string } | undefined;
  let behaviour: "answer" | "fail" | "hang" = "answer";
  let requests = 0;
  let generation = 0;
  const hanging = new Set<ServerResponse>();
  let server: Server | undefined;
  let port = 0;

  async function open(): Promise<void> {
    server = createServer((_request, response) => {
      requests += 1;
      switch (behaviour) {
        case "answer":
          response.setHeader("content-type", "application/json").end(JSON.stringify({ keys: published }));
          break;
        case "fail":
          response.writeHead(503).end();
          break;
        case "hang":
          hanging.add(response);
      }
    }).listen(port, "127.0.0.1");
    await once(server, "listening");
    port = (server.address() as AddressInfo).port; // a TCP server has no other kind of address
  }

  async function close(): Promise<void> {
    server?.closeAllConnections();
    await new Promise((resolve) => (server === undefined ? resolve(undefined) : server.close(resolve)));
    server = undefined;
  }

  async function rotate(
    options: { keep?: boolean; kid?: string | undefined; alg?: string } = {},
  ): Promise<void> {
    const of = options.alg ?? alg;
    const { publicKey, privateKey } = await generateKeyPair(of, { extractable: true });
    generation += 1;
    const kid = "kid" in options ? options.kid : `key-${generation}`;
    const jwk = { ...(await exportJWK(publicKey)), use: "sig", alg: of, ...(kid !== undefined && { kid }) };
    published = options.keep === true ? [...published, jwk] : [jwk];
    signing = { key: privateKey, kid, alg: of };
  }

  await rotate();
  await open();
  onTestFinished(close);
  return {
    jwksUrl: `http://127.0.0.1:${port}/keys`,
    get requests() {
      return requests;
    },
    rotate,
    publish(key) {
      published = [key, ...published];
    },
    async sign(claims) {
      if (signing === undefined) {
        throw new Error("there is no key to sign with");
      }
      const { key, kid, alg: of } = signing;
      return await new SignJWT(claims)
        .setProtectedHeader({ alg: of, ...(kid !== undefined && { kid }) })
        .sign(key);
    },
    behave(how) {
      behaviour = how;
    },
    die: close,
    revive: open,
  };
}
