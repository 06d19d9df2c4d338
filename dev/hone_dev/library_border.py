"""Every private or internal name of a library that Hone uses, with the reason. A release may rename them unannounced.

`tests/dev/test_library_border.py` checks that the pinned versions have each name and that the sources use no other.
Open this list before you change a version in `requirements/`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Use = Literal["overrides", "calls", "reads", "sets", "imports"]


class LibraryName(NamedTuple):
    """One name on the border."""

    owner: str
    """Module, or `module:Class` that has the name."""
    name: str
    use: Use
    file: str
    """The file of ours, relative to the repository."""
    why: str


_METHODS = "trainer/hone_trainer/methods"
_LOOP = "trainer/hone_trainer/training/loop.py"
_TRANSFORMERS = "transformers.trainer:Trainer"
_GRPO = "trl.trainer.grpo_trainer:GRPOTrainer"
_RLOO = "trl.trainer.rloo_trainer:RLOOTrainer"
_DPO = "trl.trainer.dpo_trainer:DPOTrainer"
_KTO = "trl.trainer.kto_trainer:KTOTrainer"
_RANDOM = "Rollouts, samples and their order are part of a checkpoint, else a resumed run trains on others."
_ORDER = "The order of prompts is a function of the seed and the step, so that a resumed run finds it again."
_UNREAD = "Numbers of a micro batch stay on the device until they are logged."
_MODEL_CHECK = "trainer/hone_trainer/training/model_check.py"
_AS_TRAINED = "The loaded model is checked with the loss head and the packed inputs that TRL's trainers give it."
_RESHARDING = "trainer/hone_trainer/training/resharding.py"
_UNPICKLED = "The classes in DeepSpeed's checkpoints: torch unpickles only those that are named."
_ENCODED = "Rows arrive encoded: TRL would tokenize them again, with its own templates."
_REFERENCE = (
    "The reference's log-probabilities come from our own pass, which can be stopped and serves evaluation as well."
)

_SIGNATURE = "trainer/hone_trainer/store/signature.py"
_SIGNED = "The library's own verification hashes every file; Hone has just compared each with the manifest."
_ONCE = "Its own command hashes every file again; Hone signs the hashes that it has just compared with the manifest."
_FORWARDED = "The library's call gives no access to the connection's thread and socket before they are at work."

NAMES: tuple[LibraryName, ...] = (
    # model-signing
    LibraryName("model_signing._signing.sign_ec_key", "Verifier", "imports", _SIGNATURE, _SIGNED),
    LibraryName("model_signing._signing.sign_sigstore_pb", "Signature", "imports", _SIGNATURE, _SIGNED),
    LibraryName("model_signing._signing.sign_ec_key", "Signer", "imports", _SIGNATURE, _ONCE),
    LibraryName("model_signing._signing.signing", "Payload", "imports", _SIGNATURE, _ONCE),
    # transformers
    LibraryName(
        _TRANSFORMERS,
        "_get_grad_norm",
        "overrides",
        _LOOP,
        "Losses and gradient norm are read once, before the optimizer.",
    ),
    LibraryName(_TRANSFORMERS, "_get_output_dir", "overrides", _LOOP, "Checkpoints are written aside until complete."),
    LibraryName(
        _TRANSFORMERS,
        "_save_checkpoint",
        "overrides",
        _LOOP,
        "Checkpoints are complete or absent; TRL's adds a model card.",
    ),
    LibraryName(
        _TRANSFORMERS, "_prepare_for_training", "overrides", _LOOP, "The first moment at which sharding can be checked."
    ),
    LibraryName(
        _TRANSFORMERS,
        "_run_epoch",
        "overrides",
        _LOOP,
        "transformers trains one more step when resumed after the last one.",
    ),
    LibraryName(
        _TRANSFORMERS,
        "_load_best_model",
        "calls",
        _LOOP,
        "Loads the weights of a checkpoint under every kind of sharding.",
    ),
    LibraryName(_TRANSFORMERS, "_get_train_sampler", "overrides", f"{_METHODS}/rl/ppo_loop.py", _ORDER),
    LibraryName(
        _TRANSFORMERS,
        "_prepare_inputs",
        "overrides",
        f"{_METHODS}/rl/ppo_loop.py",
        "A step gets rollouts, which are on the device already; prompts go through the original.",
    ),
    LibraryName(
        _TRANSFORMERS,
        "_prepare_inputs",
        "calls",
        _LOOP,
        "A rank that has no rows left steps on stand-in rows, which no loader moved to the device.",
    ),
    LibraryName(_TRANSFORMERS, "_save_rng_state", "overrides", f"{_METHODS}/rl/ppo_loop.py", _RANDOM),
    LibraryName(_TRANSFORMERS, "_load_rng_state", "overrides", f"{_METHODS}/rl/ppo_loop.py", _RANDOM),
    LibraryName(
        "transformers.configuration_utils:PreTrainedConfig",
        "_attn_implementation",
        "sets",
        "trainer/hone_trainer/training/batches/attention.py",
        "An attention function for one block of code, set on the config that the layers read, and put back.",
    ),
    LibraryName(
        "transformers.configuration_utils:PreTrainedConfig",
        "_name_or_path",
        "sets",
        "dev/hone_dev/models/gguf.py",
        "The saved config must not carry the path of the file on this machine.",
    ),
    LibraryName(
        "gguf:GGUFReader",
        "_get_field_parts",
        "sets",
        "trainer/hone_trainer/models/gguf.py",
        "Reading without the texts of a vocabulary, which take most of the time.",
    ),
    LibraryName(
        "transformers.core_model_loading",
        "_weight_conversions",
        "reads",
        "trainer/hone_trainer/artifacts/export.py",
        "Tells a model whose tensors are stored under other names than they have in memory.",
    ),
    LibraryName(
        "transformers.integrations.deepspeed",
        "_hf_deepspeed_config_weak_ref",
        "sets",
        "trainer/hone_trainer/models/whole.py",
        "A model for one rank alone is made whole although the run's ZeRO-3 configuration is alive.",
    ),
    LibraryName(
        "transformers.utils.chat_template_utils",
        "_compile_jinja_template",
        "imports",
        "trainer/hone_trainer/encoding/rendering.py",
        "Chat templates print the day of the run; arguments of apply_chat_template cannot hold a function.",
    ),
    LibraryName(
        "transformers:PreTrainedTokenizerFast",
        "_encode_plus",
        "reads",
        "trainer/hone_trainer/encoding/tokens.py",
        "A tokenizer class that overrides it is called by transformers; the others by the Rust library, twice as fast.",
    ),
    LibraryName(
        "transformers:PreTrainedTokenizerFast",
        "_decode",
        "reads",
        "trainer/hone_trainer/encoding/tokens.py",
        "A tokenizer class that overrides it decodes by itself; the others by the pieces of the Rust library.",
    ),
    LibraryName(
        "tokenizers.models:BPE",
        "_resize_cache",
        "calls",
        "trainer/hone_trainer/encoding/tokens.py",
        "Texts have more words than the library keeps the tokens of; nothing depends on it but the time.",
    ),
    *(
        LibraryName(
            "transformers.models.auto.modeling_auto",
            name,
            "imports",
            "trainer/hone_trainer/models/base_model.py",
            "The kind of each architecture, without loading a model.",
        )
        for name in ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES")
    ),
    # accelerate, DeepSpeed
    LibraryName(
        "accelerate.state:PartialState",
        "_prepare_backend",
        "sets",
        "trainer/hone_trainer/training/deepspeed.py",
        "accelerate finds no backend for DeepSpeed on CPUs.",
    ),
    LibraryName(
        "deepspeed.runtime.engine:DeepSpeedEngine",
        "_zero3_consolidated_16bit_state_dict",
        "calls",
        "trainer/hone_trainer/artifacts/export.py",
        "Gathers an adapter without the frozen base; accelerate's get_state_dict gathers both.",
    ),
    LibraryName(
        "deepspeed.runtime.engine:DeepSpeedEngine",
        "_get_all_ckpt_names",
        "sets",
        "trainer/hone_trainer/training/resharding.py",
        "A rank that was not there when a checkpoint was saved has no file of its own, and reads that of the first.",
    ),
    LibraryName("deepspeed.runtime.fp16.loss_scaler", "DynamicLossScaler", "imports", _RESHARDING, _UNPICKLED),
    LibraryName("deepspeed.runtime.fp16.loss_scaler", "LossScaler", "imports", _RESHARDING, _UNPICKLED),
    LibraryName("deepspeed.runtime.zero.config", "ZeroStageEnum", "imports", _RESHARDING, _UNPICKLED),
    LibraryName("deepspeed.utils.tensor_fragment", "fragment_address", "imports", _RESHARDING, _UNPICKLED),
    # TRL
    LibraryName(_DPO, "_prepare_dataset", "overrides", f"{_METHODS}/dpo.py", _ENCODED),
    LibraryName(_KTO, "_prepare_dataset", "overrides", f"{_METHODS}/kto.py", _ENCODED),
    LibraryName(_DPO, "_precompute_ref_logps", "overrides", f"{_METHODS}/dpo.py", _REFERENCE),
    LibraryName(_KTO, "_precompute_ref_logps", "overrides", f"{_METHODS}/kto.py", _REFERENCE),
    LibraryName(_GRPO, "_tokenize_prompts", "overrides", f"{_METHODS}/grpo.py", _ENCODED),
    LibraryName(
        _GRPO,
        "_generate_and_score_completions",
        "overrides",
        f"{_METHODS}/grpo.py",
        "Samples without a reward are excluded from the loss.",
    ),
    LibraryName(
        _GRPO,
        "_save_checkpoint",
        "overrides",
        f"{_METHODS}/grpo.py",
        "Samples that are under way are waited for before a checkpoint begins, which is not the checkpoint's cost.",
    ),
    LibraryName(_GRPO, "_compute_loss", "overrides", f"{_METHODS}/grpo.py", _UNREAD),
    LibraryName(_GRPO, "_metrics", "reads", f"{_METHODS}/grpo.py", _UNREAD),
    LibraryName(_RLOO, "_compute_loss", "overrides", f"{_METHODS}/grpo.py", _UNREAD),
    LibraryName(_RLOO, "_metrics", "reads", f"{_METHODS}/grpo.py", _UNREAD),
    LibraryName(_GRPO, "_get_train_sampler", "overrides", f"{_METHODS}/grpo.py", _ORDER),
    LibraryName(_GRPO, "_save_rng_state", "overrides", f"{_METHODS}/grpo.py", _RANDOM),
    LibraryName(_GRPO, "_load_rng_state", "overrides", f"{_METHODS}/grpo.py", _RANDOM),
    LibraryName(_GRPO, "_buffered_inputs", "sets", f"{_METHODS}/grpo.py", _RANDOM),
    LibraryName(
        _GRPO, "_step", "sets", f"{_METHODS}/grpo.py", "TRL counts from 0 in a resumed run and would sample again."
    ),
    LibraryName(_RLOO, "_tokenize_prompts", "overrides", f"{_METHODS}/grpo.py", _ENCODED),
    LibraryName(
        _RLOO, "_generate_and_score_completions", "overrides", f"{_METHODS}/grpo.py", "The same method as GRPO's."
    ),
    LibraryName(_RLOO, "_get_train_sampler", "overrides", f"{_METHODS}/grpo.py", _ORDER),
    LibraryName(_RLOO, "_buffered_inputs", "sets", f"{_METHODS}/grpo.py", _RANDOM),
    LibraryName(
        _RLOO, "_step", "sets", f"{_METHODS}/grpo.py", "TRL counts from 0 in a resumed run and would sample again."
    ),
    LibraryName(
        _GRPO,
        "_last_loaded_step",
        "sets",
        f"{_METHODS}/rl/served.py",
        "TRL sets it only for an engine that it starts itself.",
    ),
    LibraryName(
        "trl.generation.vllm_generation:VLLMGeneration",
        "_iter_named_params",
        "sets",
        f"{_METHODS}/rl/generation.py",
        "vLLM gets merged weights; TRL would merge them into the model in training.",
    ),
    LibraryName(
        "trl.trainer.utils",
        "FusedCausalLMOutput",
        "imports",
        "trainer/hone_trainer/training/chunked_loss.py",
        "TRL's SFT loss takes this type from a model whose head runs in chunks.",
    ),
    LibraryName(
        "trl.trainer.utils",
        "add_fused_lm_head",
        "imports",
        f"{_METHODS}/orpo.py",
        "Log-probabilities without whole logits, which TRL's ORPO computes.",
    ),
    LibraryName(
        "trl.trainer.utils",
        "add_fused_lm_head",
        "imports",
        "trainer/hone_trainer/evaluation/scoring_model.py",
        "Log-probabilities without the logits of all tokens in memory.",
    ),
    LibraryName("trl.trainer.utils", "add_fused_lm_head", "imports", _MODEL_CHECK, _AS_TRAINED),
    LibraryName("trl.trainer.sft_trainer", "DataCollatorForLanguageModeling", "imports", _MODEL_CHECK, _AS_TRAINED),
    LibraryName(
        "trl.trainer.utils",
        "disable_dropout_in_model",
        "imports",
        f"{_METHODS}/ppo.py",
        "Policy and sampler must be the same model, or their ratio is noise.",
    ),
    LibraryName(
        "trl.trainer.utils",
        "add_fused_lm_head",
        "imports",
        f"{_METHODS}/ppo.py",
        "Log-probabilities and entropies of answers without whole logits.",
    ),
    LibraryName(
        "trl.trainer.utils",
        "RepeatSampler",
        "imports",
        f"{_METHODS}/rl/ppo_loop.py",
        "The sampler that GRPO has, for PPO.",
    ),
    LibraryName("trl.experimental.orpo", "ORPOConfig", "imports", f"{_METHODS}/orpo.py", "TRL has ORPO only there."),
    LibraryName("trl.experimental.orpo", "ORPOTrainer", "imports", f"{_METHODS}/orpo.py", "TRL has ORPO only there."),
    # PEFT
    LibraryName(
        "peft.tuners.lora",
        "LoraLayer",
        "imports",
        "trainer/hone_trainer/models/targets.py",
        "Which layers got an adapter.",
    ),
    LibraryName(
        "peft.tuners.lora",
        "LoraLayer",
        "imports",
        "trainer/hone_trainer/evaluation/interpolation.py",
        "Scales the adapter of each layer.",
    ),
    LibraryName(
        "peft.tuners.lora",
        "LoraLayer",
        "imports",
        "trainer/hone_trainer/artifacts/servable.py",
        "Rank and scale of each layer, as PEFT computes them.",
    ),
    LibraryName(
        "peft.tuners.lora.layer",
        "ParamWrapper",
        "imports",
        "trainer/hone_trainer/models/targets.py",
        "Tells adapters of expert tensors from those of layers.",
    ),
    LibraryName(
        "peft.utils.save_and_load",
        "load_peft_weights",
        "imports",
        "trainer/hone_trainer/artifacts/servable.py",
        "Reads an exported adapter as PeftModel.from_pretrained does.",
    ),
    # datasets, lm-evaluation-harness
    LibraryName(
        "datasets.packaged_modules",
        "_PACKAGED_DATASETS_MODULES",
        "imports",
        "trainer/hone_trainer/harness/catalogue.py",
        "Names that `load_dataset` takes for a file format instead of a data set of the hub.",
    ),
    LibraryName(
        "lm_eval.api.model:TemplateLM",
        "_loglikelihood_tokens",
        "overrides",
        "trainer/hone_trainer/harness/language_model.py",
        "What lm-eval asks every model class to implement.",
    ),
    LibraryName(
        "lm_eval.tasks._factory",
        "GROUP_FIELD_NAMES",
        "imports",
        "trainer/hone_trainer/harness/catalogue.py",
        "Tells a plain group from one that changes its tasks.",
    ),
    LibraryName(
        "lm_eval.tasks._yaml_loader",
        "load_yaml",
        "imports",
        "trainer/hone_trainer/harness/tasks.py",
        "Reads one definition without an index of all tasks.",
    ),
    LibraryName(
        "lm_eval.tasks._index",
        "TaskIndex",
        "imports",
        "trainer/hone_trainer/harness/catalogue.py",
        "Finds a definition by name; the library's TaskManager builds the task at once.",
    ),
    LibraryName(
        "lm_eval.api.model",
        "TemplateLM",
        "imports",
        "trainer/hone_trainer/harness/language_model.py",
        "The documented base class of models.",
    ),
    LibraryName(
        "lm_eval.api.instance",
        "Instance",
        "imports",
        "trainer/hone_trainer/harness/language_model.py",
        "The documented type of requests.",
    ),
    LibraryName(
        "lm_eval.api.registry",
        "metric_registry",
        "imports",
        "trainer/hone_trainer/harness/catalogue.py",
        "Which metrics lm-eval has itself, and which it would download.",
    ),
    LibraryName(
        "lm_eval.api.metrics",
        "lm_eval.api.metrics",
        "imports",
        "trainer/hone_trainer/harness/catalogue.py",
        "Its import fills the registry of metrics.",
    ),
    *(
        LibraryName(
            "lm_eval.models.utils",
            name,
            "imports",
            "trainer/hone_trainer/harness/language_model.py",
            "Requests are read as lm-eval's own HFLM reads them.",
        )
        for name in ("handle_stop_sequences", "has_bos_prefix", "normalize_gen_kwargs", "postprocess_generated_text")
    ),
    # kubernetes
    LibraryName(
        "kubernetes.aio.client.api_client",
        "ApiClient",
        "imports",
        "operator/hone_operator/apiserver/cluster.py",
        "The API client without the generated classes of each API group, which the operator does not use.",
    ),
    LibraryName(
        "kubernetes.aio.client.configuration",
        "Configuration",
        "imports",
        "operator/hone_operator/apiserver/cluster.py",
        "Configures that client.",
    ),
    LibraryName(
        "kubernetes.client.exceptions",
        "ApiException",
        "imports",
        "cli/hone_cli/reach/kube.py",
        "The exception of the API client, from the module that defines it.",
    ),
    LibraryName(
        "kubernetes.client.rest",
        "RESTClientObject",
        "imports",
        "cli/hone_cli/reach/connecting.py",
        "Connections by certificates that were renewed: the client has no call to make them again.",
    ),
    *(
        LibraryName("kubernetes.stream.ws_client", name, "imports", "cli/hone_cli/reach/connecting.py", _FORWARDED)
        for name in ("PortForward", "create_websocket", "get_websocket_url")
    ),
    LibraryName(
        "kubernetes.stream.ws_client:PortForward",
        "_proxy",
        "overrides",
        "cli/hone_cli/reach/connecting.py",
        "Its thread dies of a connection that breaks, and whoever reads from it waits without an end.",
    ),
    # torch, aiohttp, Python
    LibraryName(
        "torch.nn:Module",
        "_parameters",
        "sets",
        "trainer/hone_trainer/artifacts/servable.py",
        "Replaces trainable parameters on the meta device by real ones, to see which of them PEFT loads.",
    ),
    LibraryName(
        "torch.distributed.elastic.rendezvous.static_tcp_rendezvous:StaticTCPRendezvous",
        "_store",
        "sets",
        "trainer/hone_trainer/distributed/loopback.py",
        "The store listens on a socket of ours, bound to loopback.",
    ),
    LibraryName(
        "aiohttp.web_protocol:RequestHandler",
        "_messages",
        "reads",
        "operator/hone_operator/progress/connections.py",
        "Errors that a closed connection left there keep its buffers alive.",
    ),
    LibraryName(
        "aiohttp.web:BaseSite",
        "_runner",
        "reads",
        "operator/hone_operator/progress/connections.py",
        "A site of our own.",
    ),
    LibraryName(
        "aiohttp.web:BaseSite",
        "_server",
        "sets",
        "operator/hone_operator/progress/connections.py",
        "A site of our own.",
    ),
)
"""By library; a name that two files use occurs twice."""
