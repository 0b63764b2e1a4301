import { type DescMethod, getOption } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Role as DeclaredRole, policy } from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import type { Role } from "../interceptors/call-context.ts";

/** What a caller needs; `public`: nothing, not even credentials. */
export type RequiredRole = Role | "public";

const found = new WeakMap<DescMethod, RequiredRole>();

/**
 * Who may call a method, as the option `(toolplane.annotations.v1.policy).role` says. Without it: readers where the
 * method has no side effects, else operators.
 */
export function roleOf(method: DescMethod): RequiredRole {
  let role = found.get(method);
  if (role === undefined) {
    role = readRole(method);
    found.set(method, role);
  }
  return role;
}

function readRole(method: DescMethod): RequiredRole {
  switch (getOption(method, policy).role) {
    case DeclaredRole.PUBLIC:
      return "public";
    case DeclaredRole.READER:
      return "reader";
    case DeclaredRole.CALLER:
      return "caller";
    case DeclaredRole.OPERATOR:
      return "operator";
    case DeclaredRole.UNSPECIFIED:
      return method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS ? "reader" : "operator";
    default:
      // A role that a later contract has added: who could tell whether a lesser one would do.
      return "operator";
  }
}

const RANKS = { reader: 1, caller: 2, operator: 3 } as const satisfies Record<Role, number>;

/** Whether a role may do what another one may. */
export function includesRole(role: Role, other: Role): boolean {
  return RANKS[role] >= RANKS[other];
}
