import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from words_plugin import Words

from pyvider_rpcplugin.sync import plugin_client_sync

PLUGIN = Path(__file__).with_name("words_plugin.py")
TEXTS = ["the cat and the dog", "to be or not to be", "row row row your boat"]

with plugin_client_sync([sys.executable, str(PLUGIN)]) as client:
    words: Words = client.proxy(Words)

    print(words.most_common(TEXTS[0]))

    for word in words.backwards(iter(["stressed", "live"])):
        print(word)

    # Any number of threads may call at the same time.
    with ThreadPoolExecutor() as threads:
        for common in threads.map(words.most_common, TEXTS):
            print(common[0])

    try:
        words.most_common(" ")
    except ValueError as error:
        print("refused:", error)
