// A bare hardhat network: no compiler, no plugins. Genesis time (ISO 8601) and block time (ms, 0 = automine) come
// from the environment, because `hardhat node` has no options for them.
const blockTimeMs = Number(process.env.FAIRSTRIKE_BLOCK_TIME_MS || "0");
const initialDate = process.env.FAIRSTRIKE_INITIAL_DATE;

module.exports = {
  networks: {
    hardhat: {
      chainId: 31337,
      hardfork: "prague",
      blockGasLimit: 60000000,
      allowUnlimitedContractSize: false,
      initialBaseFeePerGas: 1000000000,
      mining: blockTimeMs > 0 ? { auto: false, interval: blockTimeMs } : { auto: true, interval: 0 },
      ...(initialDate ? { initialDate } : {}),
    },
  },
};
