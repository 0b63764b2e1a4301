import { Code, ConnectError } from "@connectrpc/connect";
import { codeToString } from "@connectrpc/connect/protocol-connect";
import { type HttpHandler, type Role, sendJson } from "@toolplane/framework";
import type { Access } from "./access.ts";

/** Asks for credentials before a handler of plain HTTP answers at the paths that it guards. */
export function protectHttp(
  handler: HttpHandler,
  guards: (path: string) => boolean,
  role: Role,
  { required, check }: Pick<Access, "required" | "check">,
): HttpHandler {
  if (!required) {
    return handler;
  }
  return async (request, response) => {
    const path = (request.url ?? "").split("?", 1)[0] ?? "";
    if (guards(path)) {
      try {
        await check(request.headers.authorization, role, path);
      } catch (error) {
        if (!(error instanceof ConnectError)) {
          throw error;
        }
        response.statusCode = statusOf(error.code);
        error.metadata.forEach((value, name) => {
          response.setHeader(name, value);
        });
        sendJson(response, { code: codeToString(error.code), message: error.rawMessage });
        return true;
      }
    }
    return handler(request, response);
  };
}

function statusOf(code: Code): number {
  switch (code) {
    case Code.Unauthenticated:
      return 401;
    case Code.PermissionDenied:
      return 403;
    default:
      return 503;
  }
}
