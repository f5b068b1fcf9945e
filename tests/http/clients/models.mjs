// The npm clients of model APIs, which `setup.sh test` installs beside this file.
export { default as Anthropic } from "@anthropic-ai/sdk";
export { ApiError, GoogleGenAI } from "@google/genai";
export { default as OpenAI } from "openai";
