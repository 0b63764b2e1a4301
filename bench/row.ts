/** One line of the results: a figure of ours, beside a peer's or a limit, measured in the same run. */
export interface BenchRow {
  readonly area: string;
  /** What was measured, with its size, such as `get a tool of 100,000, p99`. */
  readonly what: string;
  readonly ours: string;
  /** The peer's figure on the same work, or a dash where the figure stands against a limit. */
  readonly peer: string;
  readonly peerName: string;
  /** Ours against the peer's, such as `3.4×`; a dash where there is no peer. */
  readonly ratio: string;
  /** What is required. */
  readonly target: string;
  readonly pass: boolean;
}
