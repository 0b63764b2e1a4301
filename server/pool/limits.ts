/** What a connection pool may use. Times are in milliseconds. */
export interface PoolLimits {
  /** Connections in all, those being opened included. Default 100. */
  readonly maxConnections: number;
  /** Connections to one host and port. Default 10. */
  readonly maxConnectionsPerHost: number;
  /** Idle connections that are kept; beyond, the one that has been idle longest is closed. Default 20. */
  readonly maxIdleConnections: number;
  /** Requests at once in one HTTP/2 connection, where the peer allows as many. Default 256. */
  readonly maxStreamsPerConnection: number;
  /** How long connecting may take, TLS and the HTTP/2 preface included. Default 5,000. */
  readonly connectTimeoutMs: number;
  /** How long an idle connection is kept. Default 60,000. */
  readonly idleTimeoutMs: number;
  /** The age at which a connection takes no more requests. Default 300,000. */
  readonly maxAgeMs: number;
  /** A connection takes no more requests when a larger share of its last 20 failed. Default 0.5. */
  readonly failureThreshold: number;
  /** Requests to have seen before `failureThreshold` counts, up to 20. Default 10. */
  readonly failureMinRequests: number;
  /** Time between two looks at all connections. Default 30,000. */
  readonly sweepIntervalMs: number;
  /** Requests that wait for a connection; beyond, they are refused. Default 1,000. */
  readonly maxQueue: number;
  /** How long a request waits for a connection. Default 10,000. */
  readonly queueTimeoutMs: number;
  /** An HTTP/2 connection that was silent for this long is pinged together with its next request. Default 10,000. */
  readonly verifyAfterMs: number;
  /**
   * An HTTP/2 connection with running requests that was silent for this long is pinged. Default 300,000, the shortest
   * interval that gRPC servers tolerate by default.
   */
  readonly pingIntervalMs: number;
  /** A connection is dead when a ping is not answered in this time. Default 5,000. */
  readonly pingTimeoutMs: number;
}

export const defaultPoolLimits: PoolLimits = {
  maxConnections: 100,
  maxConnectionsPerHost: 10,
  maxIdleConnections: 20,
  maxStreamsPerConnection: 256,
  connectTimeoutMs: 5_000,
  idleTimeoutMs: 60_000,
  maxAgeMs: 300_000,
  failureThreshold: 0.5,
  failureMinRequests: 10,
  sweepIntervalMs: 30_000,
  maxQueue: 1_000,
  queueTimeoutMs: 10_000,
  verifyAfterMs: 10_000,
  pingIntervalMs: 300_000,
  pingTimeoutMs: 5_000,
};
