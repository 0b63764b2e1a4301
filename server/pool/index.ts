export type { ConnectionPool, ConnectionStats, PoolStats, TransportOptions } from "./connection-pool.ts";
export { type ConnectionPoolOptions, createConnectionPool } from "./create-connection-pool.ts";
export { domainErrorOf } from "./errors.ts";
export { defaultPoolLimits, type PoolLimits } from "./limits.ts";
