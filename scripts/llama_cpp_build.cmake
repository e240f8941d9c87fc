# Trims the llama.cpp build inside llama-cpp-python to what parlm loads: libllama and ggml.
#
# install_llama_cpp.sh injects this file with -DCMAKE_PROJECT_llama.cpp_INCLUDE=...; CMake then runs
# it right after `project("llama.cpp")`. What is set here are normal variables: they shadow cache
# entries, among them LLAMA_BUILD_COMMON, which the package's own CMakeLists.txt forces to ON.
# An option given by the user in CMAKE_ARGS that is not named here (GGML_CUDA, GGML_NATIVE, ...)
# keeps its usual effect.

set(LLAMA_BUILD_COMMON OFF)     # argument parsing, downloads, chat templates, HTTP: not used
set(LLAMA_BUILD_TESTS OFF)
set(LLAMA_BUILD_TOOLS OFF)
set(LLAMA_BUILD_EXAMPLES OFF)
set(LLAMA_BUILD_SERVER OFF)
set(LLAMA_BUILD_APP OFF)
set(LLAMA_OPENSSL OFF)
set(LLAMA_ALL_WARNINGS OFF)     # also turns GGML_ALL_WARNINGS off
