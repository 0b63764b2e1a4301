/** Bundles again when a source is newer than the bundles. Returns whether it did. */
export declare function ensureBuilt(): Promise<boolean>;

/** The same for the reporters alone, which tests of runners need. */
export declare function ensureReportersBuilt(): Promise<void>;
