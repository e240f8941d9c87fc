# Trims the llama.cpp build inside llama-cpp-python to what parlm loads, libllama and ggml, and
# orders the compiler's work so that it takes about half the time.
#
# install_llama_cpp.sh injects this file with -DCMAKE_PROJECT_llama.cpp_INCLUDE=...; CMake then runs
# it right after `project("llama.cpp")`. What is set here are normal variables: they shadow cache
# entries, among them LLAMA_BUILD_COMMON, which the package's own CMakeLists.txt forces to ON.
# Options given in CMAKE_ARGS that are not named here (GGML_CUDA, GGML_NATIVE, ...) work as usual.

set(LLAMA_BUILD_COMMON OFF)     # argument parsing, downloads, chat templates, HTTP: not used
set(LLAMA_BUILD_TESTS OFF)
set(LLAMA_BUILD_TOOLS OFF)
set(LLAMA_BUILD_EXAMPLES OFF)
set(LLAMA_BUILD_SERVER OFF)
set(LLAMA_BUILD_APP OFF)
set(LLAMA_OPENSSL OFF)
set(LLAMA_ALL_WARNINGS OFF)     # also turns GGML_ALL_WARNINGS off

# The files of `dir` named in ARGN join one translation unit; their headers, and the templates they
# have in common, are then compiled once.
function(parlm_unit name dir)
    foreach(file IN LISTS ARGN)
        if(EXISTS "${dir}/${file}")
            set_source_files_properties("${dir}/${file}" TARGET_DIRECTORY llama
                PROPERTIES SKIP_UNITY_BUILD_INCLUSION OFF UNITY_GROUP ${name})
        endif()
    endforeach()
endfunction()

function(parlm_trim)
    # One file per library. A wheel has no symbolic links: libllama.so, .so.0 and .so.0.5.0 would be
    # three copies, and a process could end up with two of them loaded.
    foreach(target llama ggml ggml-base ggml-cpu ggml-blas ggml-cuda ggml-hip ggml-metal ggml-rpc
                   ggml-sycl ggml-vulkan)
        if(TARGET ${target})
            set_property(TARGET ${target} PROPERTY VERSION)
            set_property(TARGET ${target} PROPERTY SOVERSION)
        endif()
    endforeach()
    if(TARGET vendor-hash)
        set_target_properties(vendor-hash PROPERTIES EXCLUDE_FROM_ALL ON)
    endif()
    if(MSVC OR NOT TARGET llama)
        return()
    endif()

    # libllama reads files and builds graphs; the arithmetic is in ggml's kernels (ggml-cpu,
    # ggml-cuda, ...), which keep -O3 -march=native.
    target_compile_options(llama PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-O1>)
    get_target_property(dir llama SOURCE_DIR)
    set_target_properties(llama PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
    parlm_unit(memory "${dir}"
        llama-adapter.cpp llama-arch.cpp llama-cparams.cpp llama-hparams.cpp llama-io.cpp
        llama-memory.cpp llama-memory-hybrid.cpp llama-memory-hybrid-iswa.cpp
        llama-memory-hybrid-idx.cpp llama-memory-recurrent.cpp llama-kv-cache-iswa.cpp
        llama-kv-cache-dsa.cpp llama-kv-cache-dsa-iswa.cpp llama-kv-cache-msa.cpp
        llama-kv-cache-dsv4.cpp llama-model-saver.cpp)
    parlm_unit(model "${dir}"
        llama.cpp llama-chat.cpp llama-model-loader.cpp llama-model.cpp llama-quant.cpp)
    parlm_unit(context "${dir}"
        llama-batch.cpp llama-context.cpp llama-graph.cpp llama-kv-cache.cpp)
    parlm_unit(text "${dir}" llama-grammar.cpp llama-vocab.cpp unicode.cpp)
    # The samplers do loop over the whole vocabulary for every token (min-p takes 3 times as long
    # at -O1). A file with options of its own stays out of the units.
    set_source_files_properties("${dir}/llama-sampler.cpp" TARGET_DIRECTORY llama
        PROPERTIES COMPILE_OPTIONS -O2)
    # One file per architecture, about 160 of them, 40 in a unit.
    file(GLOB models LIST_DIRECTORIES false RELATIVE "${dir}" "${dir}/models/*.cpp")
    set(count 0)
    foreach(model IN LISTS models)
        math(EXPR unit "${count} / 40")
        math(EXPR count "${count} + 1")
        parlm_unit(models_${unit} "${dir}" "${model}")
    endforeach()

    # Reading GGUF headers, training and multi-device bookkeeping.
    get_target_property(dir ggml-base SOURCE_DIR)
    set_source_files_properties("${dir}/ggml-backend-meta.cpp" "${dir}/ggml-opt.cpp"
        "${dir}/gguf.cpp" TARGET_DIRECTORY ggml-base PROPERTIES COMPILE_OPTIONS -O1)
endfunction()

cmake_language(DEFER CALL parlm_trim)
