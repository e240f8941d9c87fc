"""Names of adapters' loaders, as the engine is told them."""

DEFAULT_LOADER = "adapters.builtin.default:DefaultLLMAdapter.loader"
