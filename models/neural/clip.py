"""The text-image backbone: how well a CLIP or SigLIP model finds that prompt and picture match.

r(x, y) = scale * cos(W_t t(x), W_i i(y)) + probe([W_t t(x) * W_i i(y), W_i i(y)]), with t and i
what the two towers say before their projections W: computed once, kept on disk, never trained.
Trained are scale and probe, and the projections where asked for (PickScore, arXiv 2305.01569, tunes
the whole model with the same objective). An untrained model is the CLIP score.
"""

from __future__ import annotations

import re
from collections import Counter
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from models.backbones import ClipOptions
from models.errors import BadArtifact, BadBackbone
from models.neural import encoders
from models.neural.embeddings import KEY_BYTES, EmbeddingCache, shared_root
from models.neural.memory import in_batches
from models.neural.pictures import digest, open_picture
from models.neural.probe import Probe, ProbeBackbone, as_encoded
from models.neural.store import Conversation, Encoded
from models.neural.transformer import use_bf16
from models.pairs import picture_paths

VERSION: Final = 1  # of what is embedded
CHARACTERS_PER_TOKEN: Final = 32
TOWERS: Final = ("text_model", "vision_model")
TEXTS_PER_FORWARD: Final = 64
SHAPES: Final = "shapes.json"


class ClipHead(nn.Module):
    """Outputs of what the towers say. Projections (e, dt) and (e, di)."""

    text: Tensor
    image: Tensor

    def __init__(
        self, text: Tensor, image: Tensor, log_scale: float, outputs: int, options: ClipOptions
    ) -> None:
        super().__init__()
        for name, matrix in (("text", text), ("image", image)):
            if options.tune == "projection":
                self.register_parameter(name, nn.Parameter(matrix.clone()))
            else:
                self.register_buffer(name, matrix.clone())
        self.log_scale = nn.Parameter(torch.full((outputs,), float(log_scale)))
        self.probe = Probe(
            2 * len(text),
            outputs,
            layers=options.layers,
            hidden=options.width,
            dropout=options.dropout,
        )
        last = self.probe.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)  # so that training starts at the CLIP score

    def features(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Similarity (m,) and features (m, 2e) of vectors (m, dt + di)."""
        said, shown = vectors.split([self.text.shape[1], self.image.shape[1]], dim=1)
        said, shown = normalize(said @ self.text.T, dim=1), normalize(shown @ self.image.T, dim=1)
        product = said * shown  # (m, e)
        return product.sum(dim=1), torch.cat([product, shown], dim=1)

    def forward(self, vectors: Tensor) -> Tensor:
        """Outputs (m, d)."""
        similarity, features = self.features(vectors)
        found: Tensor = self.log_scale.exp() * similarity[:, None] + self.probe(features)
        return found


class ClipBackbone(ProbeBackbone):
    """A frozen text-image model, and a head on the embeddings of prompt and picture."""

    module: ClipHead
    options: ClipOptions

    def __init__(
        self, argument: str, options: ClipOptions, *, device: torch.device, outputs: int = 1
    ) -> None:
        super().__init__(options, device=device)
        self.argument, self.outputs = argument, outputs
        self.config = encoders.read_config(argument)
        if not all(hasattr(self.config, name) for name in ("text_config", "vision_config")):
            raise BadBackbone(
                f"The model {argument!r} does not read texts and pictures.",
                advice="Choose a CLIP or SigLIP model.",
            )
        self.identity = encoders.identity(argument, self.config)
        self.tokenizer: Any = encoders.load(
            argument, lambda: AutoTokenizer.from_pretrained(argument)
        )
        self.processor: Any = encoders.load(
            argument, lambda: AutoImageProcessor.from_pretrained(argument)
        )
        special = sorted(set(self.tokenizer.all_special_tokens), key=len, reverse=True)
        self.special = re.compile("|".join(map(re.escape, special)) or r"(?!)")
        self.longest = int(self.config.text_config.max_position_embeddings)
        self.bf16 = use_bf16(options.precision, device)
        self.towers: Any = None

    def build(self, text: Tensor, image: Tensor, log_scale: float) -> None:
        """The head, for projections (e, dt) and (e, di), and where embeddings are kept."""
        self.widths = text.shape[1], image.shape[1]
        self.width = sum(self.widths)
        self.module = ClipHead(text, image, log_scale, self.outputs, self.options).to(self.device)
        root, name = shared_root(), self.fingerprint
        self.texts = EmbeddingCache(root, f"clip-text-{name}", self.widths[0])
        self.images = EmbeddingCache(root, f"clip-image-{name}", self.widths[1])

    @classmethod
    def create(
        cls, argument: str, options: ClipOptions, *, device: torch.device, outputs: int = 1
    ) -> ClipBackbone:
        """A new head on a model named by hub id or local path. Raises BadBackbone."""
        backbone = cls(argument, options, device=device, outputs=outputs)
        towers = backbone.loaded()
        backbone.build(*projections(towers), float(towers.logit_scale.detach()))
        return backbone

    @classmethod
    def load(
        cls, folder: Path, options: ClipOptions, *, device: torch.device, outputs: int = 1
    ) -> ClipBackbone:
        """A saved head with the model it was trained on. Raises BadArtifact."""
        argument, known = encoders.noted(folder)
        try:
            backbone = cls(argument, options, device=device, outputs=outputs)
            shapes = orjson.loads((folder / SHAPES).read_bytes())
            text, image = (torch.zeros(*map(int, shapes[name])) for name in ("text", "image"))
        except BadBackbone as error:
            raise BadArtifact(error.message, advice=error.advice) from error
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise BadArtifact(f"{folder.name}/{SHAPES} cannot be read ({error}).") from error
        encoders.require_same(argument, known=known, now=backbone.identity)
        backbone.build(text, image, 0.0)
        backbone.load_module(folder)
        return backbone

    def save(self, folder: Path) -> None:
        """Write the head, and which model it reads; that model is not copied."""
        self.save_module(folder)
        shapes = {name: list(getattr(self.module, name).shape) for name in ("text", "image")}
        (folder / SHAPES).write_bytes(orjson.dumps(shapes))
        encoders.note(folder, self.argument, self.identity)

    @property
    def fingerprint(self) -> str:
        """Changes with whatever changes an embedding."""
        read = {key: str(value) for key, value in self.processor.to_dict().items()}
        parts = [
            VERSION,
            self.identity,
            self.longest,
            self.bf16,
            read,
            type(self.processor).__name__,
        ]
        return blake2b(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()

    @property
    def versions(self) -> dict[str, str]:
        return {"transformers": transformers.__version__}

    def optimizer(self, train_pairs: int) -> torch.optim.Optimizer:
        """Adam; the ridge pulls the probe to zero, and so the model to the CLIP score."""
        module, rate = self.module, self.options.learning_rate
        ridge = self.options.l2 / train_pairs
        groups: list[dict[str, Any]] = [
            {"params": list(module.probe.parameters()), "weight_decay": ridge},
            {"params": [module.log_scale], "weight_decay": 0.0},
        ]
        if self.options.tune == "projection":
            matrices = {"params": [module.text, module.image], "weight_decay": 0.0}
            groups.append(matrices | {"rate": self.options.projection_rate})
        return torch.optim.Adam(groups, lr=rate, fused=True)

    @torch.no_grad()
    def standardize(self, vectors: Tensor) -> None:
        self.module.probe.standardize(self.module.features(vectors)[1])

    @property
    def probe(self) -> Probe:
        return self.module.probe

    def encode(self, conversations: list[Conversation]) -> Encoded:
        """What the towers say of every prompt and picture, computed where it is not known yet."""
        paths = picture_paths(answer for _, answer in conversations)
        prompts = [prompt[-1]["content"] if prompt else "" for prompt, _ in conversations]
        notes: Counter[str] = Counter()

        def read_texts(places: NDArray[np.int64]) -> NDArray[np.float32]:
            return self.embed_texts([prompts[place] for place in places], notes)

        def read_images(places: NDArray[np.int64]) -> NDArray[np.float32]:
            return self.embed_images([paths[place] for place in places])

        keys = [blake2b(text.encode(), digest_size=KEY_BYTES).digest() for text in prompts]
        said, new_texts = self.texts.embed(keys, read_texts, check=self.check)
        known = {path: digest(path) for path in set(paths)}
        shown, new_images = self.images.embed(
            [known[path] for path in paths], read_images, check=self.check
        )
        notes.update({"prompts_embedded": new_texts, "pictures_embedded": new_images})
        return as_encoded(np.concatenate([said, shown], axis=1), notes)

    def embed_texts(self, texts: list[str], notes: Counter[str]) -> NDArray[np.float32]:
        """Pooled text states (m, dt)."""
        found = np.zeros((len(texts), self.widths[0]), np.float32)
        tower = self.loaded().text_model
        room = self.longest * CHARACTERS_PER_TOKEN
        safe = [self.special.sub(lambda m: m[0][:1] + "\u200b" + m[0][1:], t[:room]) for t in texts]
        lengths = [len(ids) for ids in self.tokenizer(safe, verbose=False)["input_ids"]]
        notes["prompts_cut"] += sum(length > self.longest for length in lengths)

        def run(batch: list[int]) -> None:
            # Some of these models attend to padding, and all of them were trained with it.
            inputs = self.tokenizer(
                [safe[i] for i in batch],
                padding="max_length",
                truncation=True,
                max_length=self.longest,
                return_tensors="pt",
            )
            found[batch] = self._pooled(tower, dict(inputs))

        self._run(len(texts), TEXTS_PER_FORWARD, run)
        return found

    def embed_images(self, paths: list[Path]) -> NDArray[np.float32]:
        """Pooled picture states (m, di)."""
        found = np.zeros((len(paths), self.widths[1]), np.float32)
        tower = self.loaded().vision_model

        def run(batch: list[int]) -> None:
            pictures = [open_picture(paths[i]) for i in batch]
            inputs = self.processor(images=pictures, return_tensors="pt")
            found[batch] = self._pooled(tower, {"pixel_values": inputs["pixel_values"]})

        self._run(len(paths), self.options.pictures_per_forward, run)
        return found

    @torch.no_grad()
    def _pooled(self, tower: Any, inputs: dict[str, Tensor]) -> NDArray[np.float32]:
        moved = {name: value.to(self.device) for name, value in inputs.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            pooled = tower(**moved).pooler_output
        found: NDArray[np.float32] = pooled.float().cpu().numpy()
        return found

    def _run(self, count: int, at_once: int, run: Any) -> None:
        in_batches(list(range(count)), [1] * count, run, tokens=at_once, check=self.check)

    def loaded(self) -> Any:
        """The towers, loaded when they are first needed. Raises BadBackbone."""
        if self.towers is None:
            dtype = torch.bfloat16 if self.bf16 else torch.float32
            model = encoders.load(
                self.argument, lambda: AutoModel.from_pretrained(self.argument, dtype=dtype)
            )
            if not all(hasattr(model, name) for name in (*TOWERS, "logit_scale")):
                raise BadBackbone(
                    f"The model {self.argument!r} has no two towers to compare.",
                    advice="Choose a CLIP or SigLIP model.",
                )
            self.towers = model.to(self.device).eval()
        return self.towers


def projections(model: Any) -> tuple[Tensor, Tensor]:
    """Text (e, dt) and image (e, di) projection; identities where a model has none (SigLIP)."""
    found = []
    for name, tower in (("text_projection", "text_config"), ("visual_projection", "vision_config")):
        layer = getattr(model, name, None)
        if layer is not None:
            found.append(layer.weight.detach().float().cpu())
        else:
            config = getattr(model.config, tower)
            found.append(torch.eye(getattr(config, "projection_size", 0) or config.hidden_size))
    text, image = found
    if len(text) != len(image):
        raise BadBackbone("The two towers of this model cannot be compared with each other.")
    return text, image
