// The npm clients of model APIs, which `setup.sh test` installs beside this file.
export { default as Anthropic } from "@anthropic-ai/sdk";
export { ApiError, GoogleGenAI } from "@google/genai";
export { default as OpenAI } from "openai";
import { Tiktoken } from "js-tiktoken/lite";
import o200k from "js-tiktoken/ranks/o200k_base";

/** OpenAI's tokenizer of GPT-4o and later models: `encode(text)` is a list. */
export const tokenizer = () => new Tiktoken(o200k);
