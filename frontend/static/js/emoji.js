// Short names for what people put into a journal; not all there are. A name may stand for several.
const NAMES = `
smile 😄 grin 😁 joy 😂 laugh 😆 rofl 🤣 blush 😊 slight_smile 🙂 wink 😉 relieved 😌 in_love 😍 kiss 😘 yum 😋 tongue 😛 nerd 🤓
cool 😎 party_face 🥳 disappointed 😞 pensive 😔 worried 😟 confused 😕 frown ☹️ weary 😩 pleading 🥺 cry 😢 sob 😭 angry 😠
rage 😡 exploding_head 🤯 hot_face 🥵 cold_face 🥶 scared 😱 sweat 😓 hug 🤗 thinking 🤔 neutral 😐 eye_roll 🙄 surprised 😮
sleepy 😪 sleeping 😴 yawn 🥱 sneeze 🤧 mask 😷 fever 🤒 hurt 🤕 clap 👏 wave 👋 victory ✌️ crossed_fingers 🤞
point_right 👉 thumbs_up 👍 thumbs_down 👎 muscle 💪 pray 🙏 handshake 🤝 writing ✍️ raised_hand ✋ shrug 🤷 facepalm 🤦
eyes 👀 ear 👂 brain 🧠 woman 👩 man 👨 family 👪 heart ❤️ yellow_heart 💛 green_heart 💚 blue_heart 💙
black_heart 🖤 white_heart 🤍 broken_heart 💔 two_hearts 💕 star ⭐ sparkles ✨ fire 🔥 rainbow 🌈 sun ☀️ sunrise 🌅 sunset 🌇
partly_cloudy ⛅ cloud ☁️ rain 🌧️ storm ⛈️ lightning ⚡ snow ❄️ snowman ⛄ fog 🌫️ wind 💨 umbrella ☔ moon 🌙 full_moon 🌕
night 🌃 mountain ⛰️ beach 🏖️ forest 🌲 tree 🌳 seedling 🌱 clover 🍀 leaf 🍃 fallen_leaf 🍂 maple_leaf 🍁 mushroom 🍄
blossom 🌸 rose 🌹 sunflower 🌻 tulip 🌷 bouquet 💐 dog 🐶 cat 🐱 mouse 🐭 rabbit 🐰 fox 🦊 bear 🐻 cow 🐮 pig 🐷 penguin 🐧 bird 🐦
duck 🦆 owl 🦉 wolf 🐺 horse 🐴 unicorn 🦄 bee 🐝 butterfly 🦋 snail 🐌 turtle 🐢 fish 🐟 dolphin 🐬 whale 🐳 sheep 🐑 hedgehog 🦔
paw_prints 🐾 apple 🍎 pear 🍐 orange 🍊 lemon 🍋 banana 🍌 watermelon 🍉 strawberry 🍓 cherries 🍒 tomato 🍅 avocado 🥑 carrot 🥕
bread 🍞 croissant 🥐 cheese 🧀 egg 🍳 pancakes 🥞 pizza 🍕 salad 🥗 soup 🍲 sushi 🍣 ice_cream 🍦 cake 🍰 birthday 🎂 chocolate 🍫
milk 🥛 coffee ☕ tea 🍵 wine 🍷 beer 🍺 cheers 🥂 tennis 🎾 running 🏃 walking 🚶 cycling 🚴 swimming 🏊 yoga 🧘
medal 🏅 target 🎯 puzzle 🧩 game 🎮 art 🎨 theatre 🎭 film 🎬 camera 📷 music 🎵 singing 🎤 guitar 🎸 piano 🎹
dancing 💃 balloon 🎈 party 🎉 gift 🎁 car 🚗 train 🚆 bicycle 🚲 plane ✈️ rocket 🚀 ship 🚢 house 🏠 garden 🏡 hospital 🏥
school 🏫 church ⛪ bridge 🌉 tent ⛺ map 🗺️ bed 🛏️ bath 🛁 shower 🚿 key 🔑 bulb 💡 candle 🕯️ phone 📱
computer 💻 calendar 📅 book 📖 books 📚 pencil ✏️ pen 🖊️ memo 📝 letter ✉️ scissors ✂️ pill 💊 money 💰 chart 📈
shirt 👕 shoes 👟 ring 💍 check ✅ hundred 💯 bell 🔔 zzz 💤 music_notes 🎶 flag 🏁
`;

const all = NAMES.match(/\S+ \S+/g).map((pair) => pair.split(" "));

/** The emoji of exactly this name, or undefined. */
export const emojiOf = (name) => all.find(([known]) => known === name)?.[1];

/** At most so many [name, emoji], first those whose name begins with it, then those with a word that does. */
export function emojiLike(start, most) {
  const wanted = start.toLowerCase();
  const begins = all.filter(([name]) => name.startsWith(wanted));
  const within = all.filter(([name]) => name.includes(`_${wanted}`));
  return [...begins, ...within].slice(0, most);
}
