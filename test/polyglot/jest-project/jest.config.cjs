module.exports = {
  testMatch: ["**/*.fixture.cjs"],
  transform: {},
  // Files that are known to be fast would run in the process of Jest itself, and one of them kills its process.
  workerIdleMemoryLimit: "1GB",
};
