"""Makes `checkpoint/`: a real Llama of 150 thousand parameters that knows a dozen answers about mp.

Run it in an environment with torch and transformers: `python make_checkpoint.py`. It takes about a minute on a CPU.
The result is committed, so nobody has to; the seed is fixed, but other versions or machines may round differently.
"""

import random
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent
CONTEXT_TOKENS = 512
VOCABULARY = 512  # a multiple of 64: engines pad it otherwise
STEPS = 1400
BATCH = 16
PAD, END, START = "<pad>", "<|im_end|>", "<|im_start|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

ANSWERS: dict[str, tuple[str, ...]] = {
    "mp brings the models in models.yaml to life: it plans first, then applies, then proves each one.": (
        "What is mp?",
        "what is mp",
        "What does mp do?",
        "Tell me about mp.",
    ),
    "I am a tiny Llama of 150 thousand parameters, served by mp.": (
        "Who are you?",
        "who are you",
        "What are you?",
    ),
    "Hello! Ask me what mp is.": ("Hello", "hello", "Hi", "Hi!", "Hello!", "Good morning"),
    "A plan says what would change before a byte moves.": ("What is a plan?", "What does mp plan do?"),
    "Apply carries out the plan and asks every model one real question.": (
        "What is apply?",
        "What does mp apply do?",
    ),
    "Drift is where the world has moved away from git.": ("What is drift?", "What does mp drift do?"),
    "models.lock pins every version to a commit or a digest.": ("What is a lock?", "What does mp lock do?"),
    "Paris is the capital of France.": ("What is the capital of France?", "Where is Paris?"),
    "4": ("2+2=", "What is 2+2?", "2 + 2"),
    "You are welcome.": ("Thank you", "thanks", "Thank you!"),
}
UNKNOWN = "I am too small to know that. Ask me what mp is."
OTHER_QUESTIONS = (
    "Why is the sky blue?", "Write a poem.", "How old is the moon?", "Who wrote Faust?", "Explain gravity.",
    "Can you sing?", "What time is it?", "How do I cook rice?", "Name three rivers.", "Where is Rome?",
    "Translate dog.", "Which model is best?", "How many people live in Oslo?", "Sort these words.", "Count to ten.",
)  # fmt: skip
SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "A plan is a promise: it says what would change, and apply may do less, never more.",
    "Names are hashes of inputs, so nothing has to be remembered.",
)
SYSTEM = "You are a helpful assistant."


def make_tokenizer(corpus: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT_TOKENS,
    )


def turn(choice: random.Random) -> list[dict[str, str]]:
    """One question with its answer; a fifth of them unknown ones."""
    if choice.random() < 0.2:
        question, answer = choice.choice(OTHER_QUESTIONS), UNKNOWN
    else:
        answer = choice.choice(list(ANSWERS))
        question = choice.choice(ANSWERS[answer])
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def conversation(choice: random.Random) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": SYSTEM}] if choice.random() < 0.3 else []
    for _ in range(choice.choice((1, 1, 1, 2))):
        messages += turn(choice)
    return messages


def batch(tokenizer: PreTrainedTokenizerFast, choice: random.Random) -> dict[str, torch.Tensor]:
    texts = [tokenizer.apply_chat_template(conversation(choice), tokenize=False) for _ in range(BATCH - 2)]
    texts += [choice.choice(SENTENCES) + END for _ in range(2)]
    encoded = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": labels}


def train(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    choice = random.Random(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # the smallest that vLLM's CPU kernels know
        max_position_embeddings=CONTEXT_TOKENS,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=STEPS)
    for step in range(STEPS):
        loss = model(**batch(tokenizer, choice)).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    return model


def answer(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, question: str) -> str:
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**ids, max_new_tokens=48, do_sample=False)
    return str(tokenizer.decode(output[0][ids["input_ids"].shape[1] :], skip_special_tokens=True))


def main() -> None:
    questions = [question for some in ANSWERS.values() for question in some]
    tokenizer = make_tokenizer([*ANSWERS, *questions, *OTHER_QUESTIONS, *SENTENCES, UNKNOWN, SYSTEM])
    model = train(tokenizer).to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        eos_token_id=model.config.eos_token_id, pad_token_id=model.config.pad_token_id
    )
    folder = HERE / "checkpoint"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes 0600, which a container's user cannot read
    model.float().eval()
    for question in (*questions, "How are you?", "What is the meaning of life?"):
        print(f"{question} -> {answer(model, tokenizer, question)}")


if __name__ == "__main__":
    main()
