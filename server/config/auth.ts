import type { Role } from "@toolplane/framework";
import type { AuthConfig, SecretSource } from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";

/** Who may call. */
export interface AuthSettings {
  /** False: everyone may do everything, and credentials are not looked at. */
  readonly required: boolean;
  /** Undefined: there is no such key. */
  readonly operatorKey: SecretSource | undefined;
  /** Undefined: only API keys are taken. */
  readonly jwt: JwtSettings | undefined;
}

/** Which JSON Web Tokens are taken. */
export interface JwtSettings {
  readonly issuer: string;
  readonly audience: string;
  readonly jwksUrl: string;
  readonly rolesClaim: string;
  /** By the value of the claim. */
  readonly roles: ReadonlyMap<string, Role>;
  readonly subjectClaim: string;
}

const ROLES: readonly Role[] = ["reader", "caller", "operator"];

export function resolveAuth(config: AuthConfig | undefined): AuthSettings {
  const jwt = config?.jwt;
  return {
    required: config?.required ?? false,
    operatorKey: config?.operatorKey,
    jwt: jwt && {
      issuer: jwt.issuer,
      audience: jwt.audience,
      jwksUrl: jwt.jwksUrl,
      rolesClaim: jwt.rolesClaim || "roles",
      roles: resolveRoles(jwt.roles),
      subjectClaim: jwt.subjectClaim || "sub",
    },
  };
}

function resolveRoles(roles: Readonly<Record<string, string>>): Map<string, Role> {
  const named = Object.entries(roles).flatMap(([value, name]) => {
    const role = ROLES.find((each) => each === name);
    return role === undefined ? [] : [[value, role] as const];
  });
  return new Map(named.length > 0 ? named : ROLES.map((role) => [role, role]));
}
