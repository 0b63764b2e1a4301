import { Code } from "@connectrpc/connect";
import { DomainError, includesRole, type Principal } from "@toolplane/framework";

/** Something that belongs to whoever made it. */
export interface Owned {
  /** What it is, such as `test run`. */
  readonly type: string;
  readonly id: string;
  readonly createdBy: string;
}

/** Refuses a change by others than whoever made it and operators. */
export function refuseStranger({ type, id, createdBy }: Owned, principal: Principal): void {
  const isTheirs = createdBy === "anonymous" || createdBy === principal.id;
  if (isTheirs || includesRole(principal.role, "operator")) {
    return;
  }
  const name = `${type.slice(0, 1).toUpperCase()}${type.slice(1)}`;
  throw new DomainError({
    code: Code.PermissionDenied,
    reason: `NOT_YOUR_${type.toUpperCase().replaceAll(" ", "_")}`,
    message: `${name} "${id}" belongs to ${createdBy}: only they and operators may change it`,
    resource: { type, name: id },
  });
}
