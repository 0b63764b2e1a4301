import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { HEADER_VALUE, type HttpTemplate } from "./template.ts";

/** Reads secrets by name for one destination; throws a DomainError when the secret may not be sent there. */
export interface SecretLookup {
  resolve(name: string, endpoint: string): string;
}

/**
 * The secrets of one service. The variables of UTCP are named after the manual that they are in, so that two manuals may
 * call different keys the same: `KEY` in the manual of the service `web_search` is the secret `web__search_KEY`. Where
 * there is none, it is the secret `KEY`.
 */
export function secretsOf(service: string, secrets: SecretLookup): SecretLookup {
  const prefix = service.replaceAll(/[^A-Za-z0-9]/g, "__");
  return {
    resolve(name, endpoint) {
      try {
        return secrets.resolve(`${prefix}_${name}`, endpoint);
      } catch (error) {
        if (error instanceof DomainError && error.init.code === Code.NotFound) {
          return secrets.resolve(name, endpoint);
        }
        throw error;
      }
    },
  };
}

/** What a template adds to every request, variables filled in. */
export interface FixedParts {
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
  readonly query: readonly (readonly [string, string])[];
}

/**
 * Fills the variables (`$NAME`, `${NAME}`) of a template. They stand for secrets of the server's configuration that may
 * be sent to the template's host; the process environment is never read, or any manual could fetch what is in it.
 * Headers that the registration sets replace those of the template, whose variables then need no value.
 *
 * Throws a DomainError `UNRESOLVED_VARIABLE` or `UNSUPPORTED_AUTH`.
 */
export function fillTemplate(
  template: HttpTemplate,
  url: URL,
  registered: Headers,
  secrets: SecretLookup | undefined,
): FixedParts {
  const fill = (text: string, field: string) => fillVariables(text, field, url.origin, secrets);
  const headers = new Map<string, string>();
  const query: [string, string][] = [];
  for (const [name, value] of template.headers) {
    if (!registered.has(name)) {
      headers.set(name, fill(value, `headers.${name}`));
    }
  }
  const { credential } = template;
  switch (credential?.kind) {
    case undefined:
      break;
    case "api_key":
      switch (credential.location) {
        case "header":
          if (!registered.has(credential.name)) {
            headers.set(credential.name, fill(credential.value, "auth.api_key"));
          }
          break;
        case "query":
          query.push([credential.name, fill(credential.value, "auth.api_key")]);
          break;
        case "cookie":
          if (!registered.has("cookie")) {
            const cookie = `${credential.name}=${fill(credential.value, "auth.api_key")}`;
            const others = headers.get("cookie");
            headers.set("cookie", others ? `${others}; ${cookie}` : cookie);
          }
          break;
      }
      break;
    case "basic":
      if (!registered.has("authorization")) {
        const pair = `${fill(credential.username, "auth.username")}:${fill(credential.password, "auth.password")}`;
        headers.set("authorization", `Basic ${Buffer.from(pair, "utf8").toString("base64")}`);
      }
      break;
    case "unsupported":
      if (!registered.has("authorization")) {
        throw new DomainError({
          code: Code.FailedPrecondition,
          reason: "UNSUPPORTED_AUTH",
          message: `tool_call_template.auth.auth_type: "${credential.type}" is not supported; register the service with an authorization header instead`,
        });
      }
      break;
  }
  return { headers, query };
}

function fillVariables(
  text: string,
  field: string,
  origin: string,
  secrets: SecretLookup | undefined,
): string {
  const filled = text.replaceAll(
    /\$\{([A-Za-z0-9_-]+)\}|\$([A-Za-z_][A-Za-z0-9_]*)/g,
    (variable, braced: string | undefined, bare: string | undefined) => {
      try {
        if (secrets) {
          return secrets.resolve(braced ?? bare ?? "", origin);
        }
      } catch (error) {
        throw unresolved(field, variable, error instanceof DomainError ? error.message : undefined, error);
      }
      throw unresolved(field, variable);
    },
  );
  if (!HEADER_VALUE.test(filled)) {
    throw unresolved(field, text, "its value cannot be sent as a header");
  }
  return filled;
}

function unresolved(field: string, variable: string, detail?: string, cause?: unknown): DomainError {
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "UNRESOLVED_VARIABLE",
    message: `tool_call_template.${field}: the variable ${variable} has no value: ${
      detail ?? "configure a secret of that name, or register the service with the header that it is for"
    }`,
    cause,
  });
}
